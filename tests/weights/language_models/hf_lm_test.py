"""Each LM family against its class in transformers, with the same random weights."""

import jax
import numpy as np
import pytest
from flax import nnx

from flamingo_jax.core import params
from flamingo_jax.core.stack import Execution, plan
from flamingo_jax.models.lm import LanguageModel
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.language_models import hf_lm
from flamingo_jax.weights.language_models.hf_lm_config import read_config
from flamingo_jax.weights.language_models.hf_lm_names import bare_name
from tests.torch_reference import import_torch
from tests.weights.language_models.small_language_models import small_opt

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


def test_the_language_model_inside_gemma_3_under_old_names_and_new():
    old, new = (
        f"{above}.layers.0.mlp" for above in ("language_model.model", "model.language_model")
    )
    assert bare_name(old, "gemma3") == bare_name(new, "gemma3") == "layers.0.mlp"
