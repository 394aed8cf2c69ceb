"""The configs of LLaMA and of what descends from it -> `LanguageModelConfig`'s fields.

`hf_lm_config` knows them by `model_type`.
"""

from typing import Any

from flamingo_jax.weights.language_models import hf_rope, hf_windows
from flamingo_jax.weights.language_models.hf_settings import Json, activation, refuse, shape


def llama(hf: Json) -> dict[str, Any]:
    refuse(hf, attention_bias=False, mlp_bias=False)
    return (
        hf_rope.rotary(hf)
        | shape(hf, "hidden_size", "num_hidden_layers", "num_attention_heads")
        | {
            "num_kv_heads": hf.get("num_key_value_heads"),
            "ffw_width": hf["intermediate_size"],
            "norm_eps": hf["rms_norm_eps"],
            "activation": activation(hf["hidden_act"]),
            "tied_head": hf.get("tie_word_embeddings", False),
            "max_length": hf["max_position_embeddings"],
        }
    )


def mistral(hf: Json) -> dict[str, Any]:
    """A file without the key has its class's window."""
    return llama(hf) | {"sliding_window": hf.get("sliding_window", hf_windows.WINDOW)}


def _qwen(hf: Json) -> dict[str, Any]:
    """Windows are for the layers above the first, and mostly turned off."""
    if not hf.get("use_sliding_window", False):
        return llama(hf)
    first, num_layers = hf.get("max_window_layers", 28), hf["num_hidden_layers"]
    kinds = [hf_windows.SLIDING if i >= first else hf_windows.FULL for i in range(num_layers)]
    return llama(hf) | hf_windows.fields(hf, kinds)


def qwen2(hf: Json) -> dict[str, Any]:
    return _qwen(hf) | {"qkv_bias": True}


def qwen3(hf: Json) -> dict[str, Any]:
    return _qwen(hf) | {"qk_norm": True, "qk_norm_by_head": True}


def olmo2(hf: Json) -> dict[str, Any]:
    return llama(hf) | {"qk_norm": True, "norm_after": True}


def phi3(hf: Json) -> dict[str, Any]:
    """What its old files call `su` or `yarn` is LongRoPE."""
    rope = dict(hf_rope.settings(hf))
    if rope.get("rope_type", rope.get("type")) in ("su", "yarn"):
        rope["rope_type"] = "longrope"
    fraction = rope.get("partial_rotary_factor", hf.get("partial_rotary_factor", 1.0))
    fields = llama({"original_max_position_embeddings": 4096, **hf, "rope_parameters": rope})
    rope_dims = int(fields["head_dim"] * fraction)
    return fields | {"rope_dims": rope_dims, "sliding_window": hf.get("sliding_window")}


def idefics(hf: Json) -> dict[str, Any]:
    """The language model inside; a key that transformers leaves out has its class's value."""
    defaults = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 2048}
    return llama(defaults | dict(hf))
