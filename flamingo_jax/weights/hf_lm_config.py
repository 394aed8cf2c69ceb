"""A `config.json` of transformers -> `LanguageModelConfig`, for the families of `weights.hf_lm`.

A setting that the model here has not is refused by name, not passed over.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flamingo_jax.config import LanguageModelConfig, RopeScaling
from flamingo_jax.weights import checkpoint_files, json_settings
from flamingo_jax.weights.errors import BadWeightsFile, naming
from flamingo_jax.weights.json_settings import JsonSettings

Json = Mapping[str, Any]

_SLIDING, _FULL = "sliding_attention", "full_attention"  # kinds of layers
_WINDOW = 4096  # in transformers, where a file gives none

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}


def read_folder(path: pathlib.Path) -> tuple[str, LanguageModelConfig]:
    """(`model_type`, config) of a checkpoint folder.

    Raises BadWeightsFile as `read_config`, and for a value of a type that its key cannot have.
    """
    hf = json_settings.read(path / checkpoint_files.CONFIG)
    for read, keys in _TYPES.items():
        for key in keys:
            if key in hf.values and not (hf.values[key] is None and key in _MAY_BE_NULL):
                read(hf, key, None)
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


def _refuse(hf: Json, **supported: Any) -> None:
    for key, value in supported.items():
        if hf.get(key, value) != value:
            raise BadWeightsFile(
                f"config.json: {key}={hf[key]!r} is not supported, only {value!r} is"
            )


def _activation(name: str) -> str:
    if name not in _ACTIVATIONS:
        raise BadWeightsFile(f"config.json: activation {name!r}: use one of {list(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _shape(hf: Json, width: str, layers: str, heads: str) -> dict[str, Any]:
    return {
        "vocab_size": hf["vocab_size"],
        "num_layers": hf[layers],
        "width": hf[width],
        "num_heads": hf[heads],
        "head_dim": hf.get("head_dim") or hf[width] // hf[heads],
    }


def _rope(hf: Json) -> Json:
    """Rotary settings under their new name, or the empty dict; none but the plain kind."""
    rope = _rope_settings(hf)
    _refuse(
        {"rope_type": rope.get("rope_type", rope.get("type"))} if rope else {}, rope_type="default"
    )
    return rope


def _rope_settings(hf: Json) -> Json:
    return hf.get("rope_parameters") or hf.get("rope_scaling") or {}


def _rotary(hf: Json) -> dict[str, Any]:
    """`rope_base` and `rope_scaling`, of the plain kind and of Llama 3.1's."""
    rope = _rope_settings(hf)
    if rope.get("rope_type", rope.get("type")) != "llama3":
        _rope(hf)
        scaling = None
    else:
        scaling = RopeScaling(
            float(rope["factor"]),
            float(rope["low_freq_factor"]),
            float(rope["high_freq_factor"]),
            rope["original_max_position_embeddings"],
        )
    base = float(rope.get("rope_theta", hf.get("rope_theta", 10_000.0)))
    return {"rope_base": base, "rope_scaling": scaling}


def _llama(hf: Json) -> dict[str, Any]:
    _refuse(hf, attention_bias=False, mlp_bias=False)
    return (
        _rotary(hf)
        | _shape(hf, "hidden_size", "num_hidden_layers", "num_attention_heads")
        | {
            "num_kv_heads": hf.get("num_key_value_heads"),
            "ffw_width": hf["intermediate_size"],
            "norm_eps": hf["rms_norm_eps"],
            "activation": _activation(hf["hidden_act"]),
            "tied_head": hf.get("tie_word_embeddings", False),
            "max_length": hf["max_position_embeddings"],
        }
    )


def _mistral(hf: Json) -> dict[str, Any]:
    """A file without the key has its class's window."""
    return _llama(hf) | {"sliding_window": hf.get("sliding_window", _WINDOW)}


def _qwen(hf: Json) -> dict[str, Any]:
    """Windows are for the layers above the first, and mostly turned off."""
    if not hf.get("use_sliding_window", False):
        return _llama(hf)
    first, num_layers = hf.get("max_window_layers", 28), hf["num_hidden_layers"]
    kinds = [_SLIDING if i >= first else _FULL for i in range(num_layers)]
    return _llama(hf) | _windows(hf, kinds)


def _windows(hf: Json, kinds: Sequence[str]) -> dict[str, Any]:
    """`sliding_window` and `global_layers`, of `layer_types` or else these kinds of layers."""
    kinds, num_layers = hf.get("layer_types") or kinds, hf["num_hidden_layers"]
    if len(kinds) != num_layers or not {*kinds} <= {_SLIDING, _FULL}:
        raise BadWeightsFile(
            f"config.json: layer_types={kinds!r} is not supported, only {num_layers} of "
            f"{_SLIDING!r} and {_FULL!r} are"
        )
    whole = tuple(i for i, kind in enumerate(kinds) if kind == _FULL)
    window = hf.get("sliding_window", _WINDOW)
    if window is None or len(whole) == num_layers:
        return {}
    return {"sliding_window": window, "global_layers": whole}


def _qwen2(hf: Json) -> dict[str, Any]:
    return _qwen(hf) | {"qkv_bias": True}


def _qwen3(hf: Json) -> dict[str, Any]:
    return _qwen(hf) | {"qk_norm": True, "qk_norm_by_head": True}


def _gemma(hf: Json) -> dict[str, Any]:
    """Whatever its file says, "gelu" too, it was trained with the approximation by tanh."""
    tanh = "gelu_pytorch_tanh"
    _refuse({"hidden_activation": hf.get("hidden_activation") or tanh}, hidden_activation=tanh)
    fields = _llama({"tie_word_embeddings": True} | dict(hf) | {"hidden_act": tanh})
    return fields | {"norm_offset": True, "scale_embedding": True}


def _olmo2(hf: Json) -> dict[str, Any]:
    return _llama(hf) | {"qk_norm": True, "norm_after": True}


def _phi3(hf: Json) -> dict[str, Any]:
    fraction = _rope(hf).get("partial_rotary_factor", hf.get("partial_rotary_factor", 1.0))
    fields = _llama(hf)
    rope_dims = int(fields["head_dim"] * fraction)
    return fields | {"rope_dims": rope_dims, "sliding_window": hf.get("sliding_window")}


def _idefics(hf: Json) -> dict[str, Any]:
    """The language model inside; a key that transformers leaves out has its class's value."""
    defaults = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 2048}
    return _llama(defaults | dict(hf))


def _gpt_neox(hf: Json) -> dict[str, Any]:
    _refuse(hf, attention_bias=True)
    rope, shape = _rope(hf), _shape(hf, "hidden_size", "num_hidden_layers", "num_attention_heads")
    fraction = rope.get("partial_rotary_factor", hf.get("rotary_pct", 0.25))
    return shape | {
        "ffw_width": hf["intermediate_size"],
        "norm": "layernorm",
        "norm_eps": hf["layer_norm_eps"],
        "activation": _activation(hf["hidden_act"]),
        "gated_ffw": False,
        "rope_base": float(rope.get("rope_theta", hf.get("rotary_emb_base", 10_000.0))),
        "rope_dims": int(shape["head_dim"] * fraction),
        "parallel_residual": hf["use_parallel_residual"],
        "use_bias": True,
        "tied_head": hf.get("tie_word_embeddings", False),
        "max_length": hf["max_position_embeddings"],
    }


def _mpt(hf: Json) -> dict[str, Any]:
    attention = hf.get("attn_config") or {}
    _refuse(hf, no_bias=True, logit_scale=None)
    _refuse(attention, alibi=True, alibi_bias_max=8, clip_qkv=None, softmax_scale=None, qk_ln=False)
    return _alibi(hf, hf["expansion_ratio"], qk_norm=False)


def _mosaic_gpt(hf: Json) -> dict[str, Any]:
    _refuse(hf, no_bias=True, logit_scale=None, alibi=True, alibi_bias_max=8)
    _refuse(hf, attn_clip_qkv=None, softmax_scale=None)
    return _alibi(hf, hf["mlp_ratio"], qk_norm=hf["attn_qk_ln"])


def _alibi(hf: Json, ratio: int, *, qk_norm: bool) -> dict[str, Any]:
    return _shape(hf, "d_model", "n_layers", "n_heads") | {
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
    _refuse(hf, do_layer_norm_before=True, _remove_final_layer_norm=False, enable_bias=True)
    _refuse(hf, word_embed_proj_dim=hf["hidden_size"], layer_norm_elementwise_affine=True)
    return _shape(hf, "hidden_size", "num_hidden_layers", "num_attention_heads") | {
        "ffw_width": hf["ffn_dim"],
        "norm": "layernorm",
        "activation": _activation(hf["activation_function"]),
        "gated_ffw": False,
        "positions": "learned",
        "use_bias": True,
        "max_length": hf["max_position_embeddings"],
    }


def _gpt2(hf: Json) -> dict[str, Any]:
    _refuse(hf, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
    return _shape(hf, "n_embd", "n_layer", "n_head") | {
        "ffw_width": hf.get("n_inner") or 4 * hf["n_embd"],
        "norm": "layernorm",
        "norm_eps": hf["layer_norm_epsilon"],
        "activation": _activation(hf["activation_function"]),
        "gated_ffw": False,
        "positions": "learned",
        "use_bias": True,
        "max_length": hf["n_positions"],
    }


_READERS = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "olmo2": _olmo2,
    "phi3": _phi3,
    "idefics": _idefics,
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
        "sliding_window",
        *("d_model", "n_heads", "n_layers", "max_seq_len"),
        *("n_embd", "n_layer", "n_head", "n_inner", "n_positions"),
        *("ffn_dim", "word_embed_proj_dim"),
    ),
    JsonSettings.positive: (
        *("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rope_theta"),
        *("rotary_pct", "rotary_emb_base", "expansion_ratio", "mlp_ratio"),
    ),
    JsonSettings.flag: (
        "use_sliding_window",
        "tie_word_embeddings",
        "use_parallel_residual",
        "attn_qk_ln",
    ),
    JsonSettings.text: ("model_type", "hidden_act", "activation_function"),
}
_MAY_BE_NULL = ("num_key_value_heads", "head_dim", "n_inner", "sliding_window")
