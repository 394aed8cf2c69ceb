"""A `config.json` of transformers as our config: windows, scalings, and what is refused."""

import json

import pytest

from experiments.configs import language_models
from flamingo_jax.config import YarnScaling
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.language_models.hf_lm_config import read_config, read_folder
from tests.weights.language_models.small_language_models import small_opt, small_qwen


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
