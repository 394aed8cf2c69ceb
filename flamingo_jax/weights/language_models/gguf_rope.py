"""Rotary positions as a GGUF file has them: in its metadata, and as tensors of factors."""

import math
from typing import Any

import numpy as np

from flamingo_jax.config import (
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    RopeScaling,
    YarnScaling,
)
from flamingo_jax.core import rope
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.language_models.gguf_settings import Settings

# By each pair's, one of [dims / 2] numbers, frequencies are divided.
FACTORS = "rope_freqs.weight"
_SHORT, _LONG = "rope_factors_short.weight", "rope_factors_long.weight"
TENSORS = (FACTORS, _SHORT, _LONG)


def fields(settings: Settings, head_dim: int) -> dict[str, Any]:
    """`rope_base`, `rope_dims` and `rope_scaling`; BadWeightsFile for what is not here."""
    dims = settings.whole("rope.dimension_count", head_dim)
    if settings.architecture.interleaved and dims != head_dim:  # of whole heads alone, by halves
        raise BadWeightsFile(
            f"{settings.file.path}: rotary positions on {dims} of {head_dim} numbers of a head; "
            f"of {settings.name!r} only all are supported"
        )
    base = float(settings.positive("rope.freq_base", 10_000.0))
    return {
        "rope_base": base,
        "rope_dims": None if dims == head_dim else dims,
        "rope_scaling": _scaling(settings, base, dims),
    }


def _scaling(settings: Settings, base: float, dims: int) -> RopeScaling | None:
    file = settings.file
    if _LONG in file or _SHORT in file:
        short, long = (_factors(settings, name, dims).astype(str) for name in (_SHORT, _LONG))
        return LongRopeScaling(
            tuple(map(float, short)),
            tuple(map(float, long)),
            settings.whole("rope.scaling.original_context_length"),
            settings.positive("rope.scaling.attn_factor", 1.0),
        )
    if FACTORS in file and (scaling := _llama3(settings, base, dims)):
        return scaling
    factor = settings.optional("rope.scaling.factor") or settings.optional("rope.scale_linear")
    kind = file.metadata.get(f"{settings.name}.rope.scaling.type", "linear" if factor else "none")
    if kind == "none" or (kind == "linear" and factor in (None, 1)):
        return None
    if kind == "linear":
        return LinearScaling(float(factor))
    odd = [f"yarn_{name}" for name in ("ext_factor", "attn_factor", "log_multiplier")]
    odd = [name for name in odd if settings.optional(f"rope.scaling.{name}") not in (None, 1)]
    if kind != "yarn" or odd:
        raise BadWeightsFile(
            f"{file.path}: rotary scaling {' with '.join([f'{kind!r:.40}', *odd])} is not "
            "supported: use a file without it, or the model's folder of transformers (hf_lm)"
        )
    factor = float(settings.positive("rope.scaling.factor"))
    return YarnScaling(
        factor,
        settings.whole("rope.scaling.original_context_length"),
        0.1 * math.log(max(factor, 1.0)) + 1,
        float(settings.positive("rope.scaling.yarn_beta_slow", 1.0)),
        float(settings.positive("rope.scaling.yarn_beta_fast", 32.0)),
    )


def _llama3(settings: Settings, base: float, dims: int) -> Llama3Scaling | None:
    """That which makes these factors: Llama 3.1's and 3.2's, whose `factor` alone differs."""
    factors = _factors(settings, FACTORS, dims)
    if (factors == 1).all():
        return None
    scaling = Llama3Scaling(float(factors.max()), 1.0, 4.0, 8192)
    plain = rope.frequencies(dims, base)
    if not np.allclose(plain / rope.frequencies(dims, base, scaling), factors, rtol=1e-4):
        raise BadWeightsFile(
            f"{settings.file.path}: rotary scaling by {FACTORS} of {factors.min():g} to "
            f"{factors.max():g} is not Llama 3's: use the model's folder of transformers (hf_lm)"
        )
    return scaling


def _factors(settings: Settings, name: str, dims: int) -> np.ndarray:
    """f32[dims / 2]"""
    found = np.asarray(settings.file.unread(name))
    if found.shape != (dims // 2,) or not (np.isfinite(found).all() and (found > 0).all()):
        raise BadWeightsFile(
            f"{settings.file.path}: tensor {name!r} is {list(found.shape)}, its metadata ask for "
            f"{dims // 2} numbers above 0"
        )
    return found
