"""Rotary positions as a `config.json` of transformers has them, under old names and new ones."""

from typing import Any

from flamingo_jax.config import LinearScaling, Llama3Scaling
from flamingo_jax.weights.hf_settings import Json, refuse


def plain(hf: Json) -> Json:
    """Rotary settings under their new name, or the empty dict; none but the plain kind."""
    rope = settings(hf)
    refuse({"rope_type": _kind(rope)}, rope_type="default")
    return rope


def settings(hf: Json) -> Json:
    return hf.get("rope_parameters") or hf.get("rope_scaling") or {}


def _kind(rope: Json) -> str:
    return rope.get("rope_type", rope.get("type", "default"))


def rotary(hf: Json) -> dict[str, Any]:
    """`rope_base` and `rope_scaling`."""
    rope = settings(hf)
    match _kind(rope):
        case "llama3":
            scaling = Llama3Scaling(
                float(rope["factor"]),
                float(rope["low_freq_factor"]),
                float(rope["high_freq_factor"]),
                rope["original_max_position_embeddings"],
            )
        case "linear":
            scaling = LinearScaling(float(rope["factor"]))
        case _:
            plain(hf)
            scaling = None
    base = float(rope.get("rope_theta", hf.get("rope_theta", 10_000.0)))
    return {"rope_base": base, "rope_scaling": scaling}
