"""Each LM family against its class in transformers, with the same random weights."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.configs import language_models
from flamingo_jax.config import YarnScaling
from flamingo_jax.core import params
from flamingo_jax.core.stack import Execution, plan
from flamingo_jax.models.lm import LanguageModel
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.language_models import hf_lm
from flamingo_jax.weights.language_models.hf_lm_config import read_config, read_folder
from flamingo_jax.weights.language_models.hf_lm_names import bare_name
from tests.torch_reference import import_torch

VOCAB, LENGTH = 61, 40


def gpt2(hf):
    return hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=48, n_layer=3, n_head=4)
    )


def opt(hf):
    return hf.OPTForCausalLM(
        hf.OPTConfig(
            vocab_size=VOCAB,
            hidden_size=48,
            word_embed_proj_dim=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            ffn_dim=80,
            max_position_embeddings=64,
        )
    )


def gpt_neox(hf, **kwargs):
    config = hf.GPTNeoXConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=80,
        **kwargs,
    )
    return hf.GPTNeoXForCausalLM(config)


def pythia(hf):
    return gpt_neox(hf, rotary_pct=0.25)


def redpajama(hf):
    return gpt_neox(hf, rotary_pct=1.0, use_parallel_residual=False)


def small():
    """Sizes of the families that LLaMA began."""
    return {
        "vocab_size": VOCAB,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 80,
    }


def llama(hf):
    return hf.LlamaForCausalLM(hf.LlamaConfig(**small()))


def llama_3(hf):
    """Some of the six pairs of dims turn as before, some slower, some in between."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": 1000.0,
        "factor": 8.0,
        "low_freq_factor": 0.2,
        "high_freq_factor": 1.0,
        "original_max_position_embeddings": 24,
    }
    return hf.LlamaForCausalLM(hf.LlamaConfig(**small(), rope_parameters=rope))


def mistral(hf):
    """A token sees eleven, itself the last."""
    return hf.MistralForCausalLM(hf.MistralConfig(**small(), head_dim=16, sliding_window=11))


def qwen2(hf):
    """The first pairs of dims turn as before, others slower."""
    rope = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0}
    rope |= {"beta_fast": 1.0, "beta_slow": 0.1, "original_max_position_embeddings": 24}
    return hf.Qwen2ForCausalLM(hf.Qwen2Config(**small(), rope_parameters=rope))


def qwen3(hf):
    """Layers above the first have a window."""
    window = {"use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1}
    config = hf.Qwen3Config(**small(), **window, head_dim=16, tie_word_embeddings=True)
    return hf.Qwen3ForCausalLM(config)


def gemma(hf):
    return hf.GemmaForCausalLM(hf.GemmaConfig(**small(), head_dim=16))


def gemma2(hf):
    """Of three layers the second sees all; logits reach their bounds."""
    caps = {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 1.0}
    own = {"sliding_window": 11, "head_dim": 16, "query_pre_attn_scalar": 24}
    return hf.Gemma2ForCausalLM(hf.Gemma2Config(**small(), **own, **caps))


GEMMA_3 = {
    "sliding_window": 11,
    "head_dim": 16,
    "query_pre_attn_scalar": 24,
    "sliding_window_pattern": 3,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}


def gemma3_text(hf):
    """The third layer sees all, and turns slower."""
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**small(), **GEMMA_3))


def gemma3(hf):
    """With a tower for pictures beside it, which is another part's."""
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    tower |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = hf.Gemma3Config(
        text_config=hf.Gemma3TextConfig(**small(), **GEMMA_3),
        vision_config=hf.SiglipVisionConfig(**tower, vision_use_head=False),
        mm_tokens_per_image=4,
        image_token_index=VOCAB - 1,
    )
    return hf.Gemma3ForConditionalGeneration(config)


def olmo2(hf):
    return hf.Olmo2ForCausalLM(hf.Olmo2Config(**small()))


def phi3(hf, **kwargs):
    return hf.Phi3ForCausalLM(hf.Phi3Config(**small(), pad_token_id=0, **kwargs))


def phi3_partial(hf):
    """Two thirds of a head turn, slower in texts of more than 24 tokens."""
    rope = {"rope_type": "longrope", "rope_theta": 1000.0, "partial_rotary_factor": 2 / 3}
    rope |= {"short_factor": [1.0, 1.1, 1.2, 1.5], "long_factor": [1.5, 2.0, 3.0, 8.0]}
    lengths = {"original_max_position_embeddings": 24, "max_position_embeddings": 96}
    return phi3(hf, rope_parameters=rope, tie_word_embeddings=True, **lengths)


def mpt(hf, heads=4):
    return hf.MptForCausalLM(
        hf.MptConfig(vocab_size=VOCAB, d_model=48, n_layers=3, n_heads=heads, max_seq_len=64)
    )


def mpt_six_heads(hf):
    return mpt(hf, heads=6)  # not a power of two: ALiBi skips slopes


FAMILIES = (
    *(gpt2, opt, pythia, redpajama, mpt, mpt_six_heads),
    *(llama, llama_3, mistral, qwen2, qwen3, gemma, olmo2, phi3, phi3_partial),
    *(gemma2, gemma3_text, gemma3),
)


def randomised(torch, model):
    """Every parameter moved off its initial value, norms and biases too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def log_probs(torch, model, tokens, mask):
    """f32[B, T, V] of the torch model; positions count real tokens, as when it generates."""
    ids, mask = torch.as_tensor(tokens), torch.as_tensor(mask, dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if model.config.model_type != "mpt":  # MPT takes none; its ALiBi is relative
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        return torch.log_softmax(model(**inputs).logits, -1).numpy()


def state_dict(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def ours(config, tree, tokens, mask, segments):
    graph, _, _ = params.abstract(
        lambda rngs: LanguageModel(config, Execution(), segments, rngs=rngs)
    )
    tree = jax.tree.map(np.asarray, tree)  # stacks of layers are read here
    return np.asarray(jax.nn.log_softmax(nnx.merge(graph, tree)(tokens, mask)))


def padded_tokens():
    """Three rows: whole, padded on the left, padded on the right."""
    tokens = np.random.default_rng(0).integers(0, VOCAB, (3, LENGTH)).astype(np.int32)
    mask = np.ones((3, LENGTH), bool)
    mask[1, :13] = False
    mask[2, 29:] = False
    return tokens, mask


@pytest.mark.reference
@pytest.mark.parametrize("make", FAMILIES, ids=lambda f: f.__name__)
def test_log_probs_equal_transformers(make):
    torch = import_torch()
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    model = randomised(torch, make(hf))
    tokens, mask = padded_tokens()
    config = read_config(model.config.to_dict())
    segments = plan(config.num_layers, 2, 0)
    tree = hf_lm.language_model(state_dict(model), model.config.model_type, config, segments)
    for length in (7, LENGTH):  # two position ranges, within windows and beyond
        want = log_probs(torch, model, tokens[:, :length], mask[:, :length])
        have = ours(config, tree, tokens[:, :length], mask[:, :length], segments)
        real = mask[:, :length]
        difference = np.abs(want - have)[real].max()
        print(f"{make.__name__} {length} tokens: max difference {difference:.1e}")
        assert difference < 1e-4


@pytest.mark.reference
def test_mpt_1b_norms_queries_and_keys_over_all_heads():
    torch = import_torch()
    hf = pytest.importorskip("transformers", reason="transformers is not installed")

    class NormedQKV(torch.nn.Module):
        """MPT-1B's extra step, put into the class of MPT-7B, which has not got it."""

        def __init__(self, wqkv):
            super().__init__()
            self.wqkv = wqkv
            self.q_ln, self.k_ln = (torch.nn.LayerNorm(48, bias=False) for _ in range(2))

        def forward(self, x):
            q, k, v = self.wqkv(x).chunk(3, dim=-1)
            return torch.cat([self.q_ln(q), self.k_ln(k), v], -1)

    torch.manual_seed(0)
    model = mpt(hf)
    for layer in model.transformer.blocks:
        layer.attn.Wqkv = NormedQKV(layer.attn.Wqkv)
    model = randomised(torch, model)
    renamed = (
        (".attn.Wqkv.wqkv.", ".attn.Wqkv."),
        (".attn.Wqkv.q_ln", ".attn.q_ln"),
        (".attn.Wqkv.k_ln", ".attn.k_ln"),
        (".norm_1.", ".ln_1."),
        (".norm_2.", ".ln_2."),
        (".norm_f.", ".ln_f."),
        (".ffn.up_proj.", ".mlp.mlp_up."),
        (".ffn.down_proj.", ".mlp.mlp_down."),
    )
    tensors = {}
    for name, tensor in state_dict(model).items():
        for theirs, mosaic in renamed:
            name = name.replace(theirs, mosaic)
        tensors[name] = tensor
    values = {"model_type": "mosaic_gpt", "no_bias": True, "alibi": True, "attn_qk_ln": True}
    sizes = {"d_model": 48, "n_layers": 3, "n_heads": 4, "mlp_ratio": 4, "max_seq_len": 64}
    config = read_config({"vocab_size": VOCAB, **values, **sizes})
    segments = plan(3, 1, 0)
    tree = hf_lm.language_model(tensors, "mosaic_gpt", config, segments)
    tokens, mask = padded_tokens()
    want = log_probs(torch, model, tokens, mask)
    difference = np.abs(want - ours(config, tree, tokens, mask, segments))[mask].max()
    print(f"mpt_1b: max difference {difference:.1e}")
    assert difference < 1e-4


def small_opt():
    """config.json and random tensors of a one-layer OPT, as a file holds them."""
    values = {
        "model_type": "opt",
        "vocab_size": 11,
        "hidden_size": 8,
        "word_embed_proj_dim": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "ffn_dim": 12,
        "max_position_embeddings": 5,
        "activation_function": "relu",
    }
    shapes = {"embed_tokens.weight": (11, 8), "embed_positions.weight": (7, 8)}
    shapes |= {f"final_layer_norm.{kind}": (8,) for kind in ("weight", "bias")}
    for module, (outputs, inputs) in {
        "self_attn.q_proj": (8, 8),
        "self_attn.k_proj": (8, 8),
        "self_attn.v_proj": (8, 8),
        "self_attn.out_proj": (8, 8),
        "fc1": (12, 8),
        "fc2": (8, 12),
    }.items():
        shapes[f"layers.0.{module}.weight"] = (outputs, inputs)
        shapes[f"layers.0.{module}.bias"] = (outputs,)
    for norm in ("self_attn_layer_norm", "final_layer_norm"):
        shapes |= {f"layers.0.{norm}.{kind}": (8,) for kind in ("weight", "bias")}
    rng = np.random.default_rng(0)
    tensors = {f"model.decoder.{k}": rng.normal(size=v).astype("f4") for k, v in shapes.items()}
    return values, tensors


def test_opt_positions_lose_the_two_rows_of_padding():
    values, tensors = small_opt()
    tree = hf_lm.language_model(tensors, "opt", read_config(values))
    rows = tensors["model.decoder.embed_positions.weight"]
    assert np.array_equal(tree["position_embedding"], rows[2:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.decoder.layers.0.fc1.weight"), "no tensor layers.0.fc1.weight"),
        (lambda t: t.pop("model.decoder.layers.0.fc1.bias"), "ffw/up/bias is missing"),
        (lambda t: t.update(extra=np.zeros(1)), "1 tensors have no place.*extra"),
        (lambda t: t.update({"lm_head.weight": np.zeros((11, 8))}), "differs from the embedding"),
        (
            lambda t: t.update(
                {"model.decoder.layers.0.self_attn.q_proj.weight": np.zeros((9, 8))}
            ),
            r"self_attn.q_proj.weight \[9, 8\] does not fit",
        ),
        (
            lambda t: t.update({"model.decoder.embed_tokens.weight": np.zeros((12, 8))}),
            r"embedding is \(12, 8\): the config wants \(11, 8\)",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change, message):
    values, tensors = small_opt()
    change(tensors)
    with pytest.raises(BadWeightsFile, match=message):
        hf_lm.language_model(tensors, "opt", read_config(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "model_type='bert': use one of"),
        ({"word_embed_proj_dim": 4}, "word_embed_proj_dim=4 is not supported, only 8 is"),
        ({"do_layer_norm_before": False}, "do_layer_norm_before=False is not supported"),
        ({"activation_function": "mish"}, "activation 'mish'"),
        ({"num_attention_heads": 0}, "config.json of opt is damaged .*: fetch it again"),
        ({"hidden_size": "8", "word_embed_proj_dim": "8"}, "config.json of opt is damaged"),
    ],
)
def test_a_config_of_another_model_is_refused(change, message):
    values, _ = small_opt()
    with pytest.raises(BadWeightsFile, match=message):
        read_config(values | change)


def small_qwen(**changes):
    sizes = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 12, "max_position_embeddings": 64, "num_key_value_heads": 1}
    kind = {"model_type": "qwen2", "hidden_act": "silu", "rms_norm_eps": 1e-6}
    return sizes | kind | changes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"use_sliding_window": True, "layer_types": ["chunked_attention"]},
            "layer_types=.'chunked_attention'. is not supported, only 1 of 'sliding_attention' and",
        ),
        ({"use_sliding_window": True, "max_window_layers": "0"}, "damaged .*: fetch it again"),
        ({"rope_scaling": {"type": "dynamic"}}, "rope_type='dynamic' is not supported"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "config.json of qwen2: no key 'factor'"),
        ({"model_type": "gemma", "hidden_activation": "silu"}, "hidden_activation='silu' is not"),
        (
            {"model_type": "gemma3_text", "use_bidirectional_attention": True},
            "use_bidirectional_attention=True is not supported, only False is",
        ),
        (
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 4.0,
                    "high_freq_factor": 1.0,
                    "original_max_position_embeddings": 8,
                }
            },
            "config.json of qwen2: rope_scaling.slow_turns=4.0: use more than 0, and less than",
        ),
    ],
)
def test_what_a_newer_family_may_have_and_is_not_here_is_refused(change, message):
    read_config(small_qwen())
    with pytest.raises(BadWeightsFile, match=message):
        read_config(small_qwen(**change))


def test_which_layers_have_a_window():
    """As transformers' classes have it, in files with and without `layer_types`."""

    def windows(**changes):
        config = read_config(small_qwen(num_hidden_layers=3, **changes))
        return config.sliding_window, config.global_layers

    assert windows(model_type="mistral") == (4096, ())
    assert windows(model_type="mistral", sliding_window=None) == (None, ())
    assert windows(model_type="phi3", sliding_window=2047) == (2047, ())
    assert windows(model_type="phi3") == (None, ())
    window = {"sliding_window": 16, "max_window_layers": 2}
    assert windows(**window, use_sliding_window=False) == (None, ())
    assert windows(**window, use_sliding_window=True) == (16, (0, 1))
    assert windows(**window | {"max_window_layers": 3}, use_sliding_window=True) == (None, ())
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    assert windows(**window, use_sliding_window=True, layer_types=kinds) == (16, (1,))


def test_rotary_scalings_have_the_values_that_files_leave_out():
    """As transformers' `modeling_rope_utils` has them."""

    def scaling(rope, **changes):
        return read_config(small_qwen(rope_scaling=rope, **changes)).rope_scaling

    yarn = {"type": "yarn", "original_max_position_embeddings": 16}
    by_length = scaling(yarn)  # 64 of 16
    assert by_length == scaling(yarn | {"factor": 4.0}) == YarnScaling(4.0, 16, 1.1386294361119891)
    assert scaling(yarn | {"attention_factor": 1, "truncate": False}).attention_factor == 1.0
    deepseek = scaling(yarn | {"mscale": 1.0, "mscale_all_dim": 0.5})
    assert deepseek.attention_factor == pytest.approx(1.1386294361 / 1.0693147181)
    factors = {"short_factor": [1, 2], "long_factor": [3, 4]}
    phi3 = {"model_type": "phi3", "original_max_position_embeddings": 16}
    found = scaling({"type": "su", **factors}, **phi3)
    assert (found.short_factors, found.long_factors) == ((1.0, 2.0), (3.0, 4.0))
    assert (found.trained_length, found.attention_factor) == (16, pytest.approx(1.5**0.5))
    factors = {name: values[:1] for name, values in factors.items()}
    half = small_qwen(
        **phi3, partial_rotary_factor=0.5, rope_scaling={"type": "longrope", **factors}
    )
    assert read_config(half).rope_dims == 2


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("gemma_3_4b", {"hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 34}),
        (
            "gemma_3_27b",
            {
                "hidden_size": 5376,
                "intermediate_size": 21_504,
                "num_hidden_layers": 62,
                "num_attention_heads": 32,
                "num_key_value_heads": 16,
                "head_dim": 128,
                "query_pre_attn_scalar": 168,
            },
        ),
    ],
)
def test_a_gemma_that_reads_pictures_names_what_differs_from_its_class(tmp_path, name, values):
    rope = {"factor": 8.0, "rope_type": "linear"}
    text = values | {"rope_scaling": rope, "sliding_window": 1024}
    hf = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 1152}}
    assert read_config(hf) == language_models.get(name)
    (tmp_path / "config.json").write_text(json.dumps(hf | {"text_config": {"hidden_size": "8"}}))
    with pytest.raises(BadWeightsFile, match=r"text_config\.hidden_size is '8', want"):
        read_folder(tmp_path)


def test_the_language_model_inside_gemma_3_under_old_names_and_new():
    old, new = (
        f"{above}.layers.0.mlp" for above in ("language_model.model", "model.language_model")
    )
    assert bare_name(old, "gemma3") == bare_name(new, "gemma3") == "layers.0.mlp"


def test_an_old_file_of_gemma_says_gelu_and_means_the_approximation():
    config = read_config(small_qwen(model_type="gemma", hidden_act="gelu"))
    assert (config.activation, config.tied_head, config.norm_offset) == ("gelu_tanh", True, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": "8"}, "hidden_size is '8', want a whole number from 1 on: fetch the file"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, want a whole number from 1 on"),
        ({"vocab_size": 11.5}, "vocab_size is 11.5, want a whole number"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no', want true or false"),
        ({"activation_function": 1}, "activation_function is 1, want a text"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_file(tmp_path, change, message):
    values, _ = small_opt()
    (tmp_path / "config.json").write_text(json.dumps(values | {"num_key_value_heads": None}))
    assert read_folder(tmp_path) == ("opt", read_config(values))
    (tmp_path / "config.json").write_text(json.dumps(values | change))
    with pytest.raises(BadWeightsFile) as raised:
        read_folder(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path}/config.json: {message}")
