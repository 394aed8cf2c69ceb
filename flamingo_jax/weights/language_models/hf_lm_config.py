"""A `config.json` of transformers -> `LanguageModelConfig`, for the families of `hf_lm`."""

import pathlib
from collections.abc import Callable
from typing import Any

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.weights.errors import BadWeightsFile, naming
from flamingo_jax.weights.files import checkpoint_files, json_settings
from flamingo_jax.weights.files.json_settings import JsonSettings
from flamingo_jax.weights.language_models import hf_gemma_config, hf_llama_config, hf_rope
from flamingo_jax.weights.language_models.hf_settings import Json, activation, refuse, shape


def read_folder(path: pathlib.Path) -> tuple[str, LanguageModelConfig]:
    """(`model_type`, config) of a checkpoint folder.

    Raises BadWeightsFile as `read_config`, and for a value of a type that its key cannot have.
    """
    hf = json_settings.read(path / checkpoint_files.CONFIG)
    for settings in (hf, hf.section("text_config")):
        values = settings.values
        for read, keys in _TYPES.items():
            for key in keys:
                if key in values and not (values[key] is None and key in _MAY_BE_NULL):
                    read(settings, key, None)
    with naming(path):
        return hf.values.get("model_type"), read_config(hf.values)


def read_config(hf: Json) -> LanguageModelConfig:
    """Raises BadWeightsFile on another `model_type`, or on a setting that is not supported."""
    kind = hf.get("model_type")
    if kind not in _READERS:
        raise BadWeightsFile(f"config.json: model_type={kind!r}: use one of {list(_READERS)}")
    try:
        return LanguageModelConfig(**_READERS[kind](hf))
    except BadWeightsFile:
        raise
    except KeyError as error:
        raise BadWeightsFile(f"config.json of {kind}: no key {error}") from error
    except (TypeError, AttributeError, ZeroDivisionError) as error:
        raise BadWeightsFile(
            f"config.json of {kind} is damaged ({error}): fetch it again"
        ) from error
    except ValueError as error:
        raise BadWeightsFile(f"config.json of {kind}: {error}") from error


def _gpt_neox(hf: Json) -> dict[str, Any]:
    refuse(hf, attention_bias=True)
    rope = hf_rope.plain(hf)
    sizes = shape(hf, "hidden_size", "num_hidden_layers", "num_attention_heads")
    fraction = rope.get("partial_rotary_factor", hf.get("rotary_pct", 0.25))
    return sizes | {
        "ffw_width": hf["intermediate_size"],
        "norm": "layernorm",
        "norm_eps": hf["layer_norm_eps"],
        "activation": activation(hf["hidden_act"]),
        "gated_ffw": False,
        "rope_base": float(rope.get("rope_theta", hf.get("rotary_emb_base", 10_000.0))),
        "rope_dims": int(sizes["head_dim"] * fraction),
        "parallel_residual": hf["use_parallel_residual"],
        "use_bias": True,
        "tied_head": hf.get("tie_word_embeddings", False),
        "max_length": hf["max_position_embeddings"],
    }


def _mpt(hf: Json) -> dict[str, Any]:
    attention = hf.get("attn_config") or {}
    refuse(hf, no_bias=True, logit_scale=None)
    refuse(attention, alibi=True, alibi_bias_max=8, clip_qkv=None, softmax_scale=None, qk_ln=False)
    return _alibi(hf, hf["expansion_ratio"], qk_norm=False)


def _mosaic_gpt(hf: Json) -> dict[str, Any]:
    refuse(hf, no_bias=True, logit_scale=None, alibi=True, alibi_bias_max=8)
    refuse(hf, attn_clip_qkv=None, softmax_scale=None)
    return _alibi(hf, hf["mlp_ratio"], qk_norm=hf["attn_qk_ln"])


def _alibi(hf: Json, ratio: int, *, qk_norm: bool) -> dict[str, Any]:
    return shape(hf, "d_model", "n_layers", "n_heads") | {
        "ffw_width": ratio * hf["d_model"],
        "norm": "layernorm",
        "norm_eps": hf.get("layer_norm_epsilon", 1e-5),
        "norm_bias": False,
        "qk_norm": qk_norm,
        "activation": "gelu",
        "gated_ffw": False,
        "positions": "alibi",
        "max_length": hf["max_seq_len"],
    }


def _opt(hf: Json) -> dict[str, Any]:
    refuse(hf, do_layer_norm_before=True, _remove_final_layer_norm=False, enable_bias=True)
    refuse(hf, word_embed_proj_dim=hf["hidden_size"], layer_norm_elementwise_affine=True)
    return shape(hf, "hidden_size", "num_hidden_layers", "num_attention_heads") | {
        "ffw_width": hf["ffn_dim"],
        "norm": "layernorm",
        "activation": activation(hf["activation_function"]),
        "gated_ffw": False,
        "positions": "learned",
        "use_bias": True,
        "max_length": hf["max_position_embeddings"],
    }


def _gpt2(hf: Json) -> dict[str, Any]:
    refuse(hf, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
    return shape(hf, "n_embd", "n_layer", "n_head") | {
        "ffw_width": hf.get("n_inner") or 4 * hf["n_embd"],
        "norm": "layernorm",
        "norm_eps": hf["layer_norm_epsilon"],
        "activation": activation(hf["activation_function"]),
        "gated_ffw": False,
        "positions": "learned",
        "use_bias": True,
        "max_length": hf["n_positions"],
    }


_READERS = {
    "llama": hf_llama_config.llama,
    "mistral": hf_llama_config.mistral,
    "qwen2": hf_llama_config.qwen2,
    "qwen3": hf_llama_config.qwen3,
    "gemma": hf_gemma_config.gemma,
    "gemma2": hf_gemma_config.gemma2,
    "gemma3": hf_gemma_config.gemma3,
    "gemma3_text": hf_gemma_config.gemma3_text,
    "olmo2": hf_llama_config.olmo2,
    "phi3": hf_llama_config.phi3,
    "idefics": hf_llama_config.idefics,
    "gpt_neox": _gpt_neox,
    "mpt": _mpt,
    "mosaic_gpt": _mosaic_gpt,
    "opt": _opt,
    "gpt2": _gpt2,
}

_TYPES: dict[Callable[..., Any], tuple[str, ...]] = {
    JsonSettings.whole: (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
        *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
        *("sliding_window", "sliding_window_pattern"),
        *("d_model", "n_heads", "n_layers", "max_seq_len"),
        *("n_embd", "n_layer", "n_head", "n_inner", "n_positions"),
        *("ffn_dim", "word_embed_proj_dim"),
    ),
    JsonSettings.positive: (
        *("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rope_theta"),
        *("rotary_pct", "rotary_emb_base", "expansion_ratio", "mlp_ratio"),
        *("query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"),
        "rope_local_base_freq",
    ),
    JsonSettings.flag: (
        "use_sliding_window",
        "tie_word_embeddings",
        "use_parallel_residual",
        "attn_qk_ln",
    ),
    JsonSettings.text: ("model_type", "hidden_act", "activation_function"),
}
_MAY_BE_NULL = (
    *("num_key_value_heads", "head_dim", "n_inner", "sliding_window"),
    *("attn_logit_softcapping", "final_logit_softcapping"),
)
