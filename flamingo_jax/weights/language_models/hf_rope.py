"""Rotary positions as a `config.json` of transformers has them, under old names and new ones."""

import math
from collections.abc import Callable
from typing import Any

from flamingo_jax.config import (
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    RopeScaling,
    YarnScaling,
)
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.language_models.hf_settings import Json, refuse


def plain(hf: Json) -> Json:
    """Rotary settings under their new name, or the empty dict; none but the plain kind."""
    rope = settings(hf)
    refuse({"rope_type": _kind(rope)}, rope_type="default")
    return rope


def settings(hf: Json) -> Json:
    """Of any kind."""
    return hf.get("rope_parameters") or hf.get("rope_scaling") or {}


def _kind(rope: Json) -> str:
    return rope.get("rope_type", rope.get("type", "default"))


def rotary(hf: Json) -> dict[str, Any]:
    """`rope_base` and `rope_scaling`."""
    rope = settings(hf)
    if (kind := _kind(rope)) not in _SCALINGS:
        kinds = [*_SCALINGS]
        raise BadWeightsFile(f"config.json: rope_type={kind!r} is not supported, only {kinds} are")
    base = float(rope.get("rope_theta", hf.get("rope_theta", 10_000.0)))
    return {"rope_base": base, "rope_scaling": _SCALINGS[kind](hf, rope)}


def _llama3(hf: Json, rope: Json) -> Llama3Scaling:
    return Llama3Scaling(
        float(rope["factor"]),
        float(rope["low_freq_factor"]),
        float(rope["high_freq_factor"]),
        _trained_length(hf, rope),
    )


def _yarn(hf: Json, rope: Json) -> YarnScaling:
    factor = _factor(hf, rope)
    attention_factor = rope.get("attention_factor")
    if attention_factor is None:  # of the paper; the other is DeepSeek's
        scales = rope.get("mscale"), rope.get("mscale_all_dim")
        above, below = map(float, scales) if all(scales) else (1.0, 0.0)
        log = 0.1 * math.log(max(factor, 1.0))
        attention_factor = (above * log + 1) / (below * log + 1)
    return YarnScaling(
        factor,
        _trained_length(hf, rope),
        float(attention_factor),
        float(rope.get("beta_slow") or 1),
        float(rope.get("beta_fast") or 32),
        rope.get("truncate", True),
    )


def _longrope(hf: Json, rope: Json) -> LongRopeScaling:
    factor, length = _factor(hf, rope), _trained_length(hf, rope)
    attention_factor = rope.get("attention_factor")
    if attention_factor is None:
        attention_factor = math.sqrt(1 + math.log(max(factor, 1.0)) / math.log(length))
    short, long = (tuple(map(float, rope[f"{name}_factor"])) for name in ("short", "long"))
    return LongRopeScaling(short, long, length, float(attention_factor))


def _factor(hf: Json, rope: Json) -> float:
    """How many times longer texts may be."""
    given = rope.get("factor")
    return float(given or hf["max_position_embeddings"] / _trained_length(hf, rope))


def _trained_length(hf: Json, rope: Json) -> int:
    """Beside the other sizes in Phi-3's files, and believed there."""
    name = "original_max_position_embeddings"
    return hf.get(name) or rope.get(name) or hf["max_position_embeddings"]


_SCALINGS: dict[str, Callable[[Json, Json], RopeScaling | None]] = {
    "default": lambda hf, rope: None,
    "linear": lambda hf, rope: LinearScaling(float(rope["factor"])),
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
