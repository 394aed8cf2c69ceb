"""The rotation of rotary positions (Su et al. 2021), also as it is slowed down for longer texts.

As transformers' `modeling_rope_utils` computes each kind; `rope_config` says what they are.
"""

import math

import jax
import jax.numpy as jnp

from flamingo_jax.config import (
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    RopeScaling,
    YarnScaling,
)

Array = jax.Array


def rope_table(
    positions: Array,  # i32[B, T]
    dims: int,
    base: float,
    scaling: RopeScaling | None = None,
    lengths: Array | None = None,  # i32[B, T or 1], tokens of each one's text, for LongRoPE
) -> tuple[Array, Array]:
    """Cosines and sines f32[B, T, dims / 2] of rotary embedding."""
    if isinstance(scaling, LongRopeScaling):
        long, short = map(jnp.asarray, (scaling.long_factors, scaling.short_factors))
        is_long = (lengths > scaling.trained_length)[..., None]
        frequency = frequencies(dims, base) / jnp.where(is_long, long, short)
    else:
        frequency = frequencies(dims, base, scaling)
    angle = positions[..., None].astype(jnp.float32) * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    if isinstance(scaling, YarnScaling | LongRopeScaling):
        cos, sin = cos * scaling.attention_factor, sin * scaling.attention_factor
    return cos, sin


def frequencies(
    dims: int,
    base: float,
    scaling: LinearScaling | Llama3Scaling | YarnScaling | None = None,
) -> Array:
    """f32[dims / 2], radians a token."""
    frequency = base ** (-jnp.arange(0, dims, 2, dtype=jnp.float32) / dims)
    match scaling:
        case LinearScaling():
            return frequency / scaling.factor
        case Llama3Scaling():
            return _by_turns(frequency, scaling)
        case YarnScaling():
            return _by_dims(frequency, base, scaling)
    return frequency


def _by_turns(frequency: Array, scaling: Llama3Scaling) -> Array:
    """f32[dims / 2], radians a token."""
    turns = frequency * scaling.trained_length / (2 * math.pi)
    fast = (turns - scaling.slow_turns) / (scaling.fast_turns - scaling.slow_turns)
    fast = jnp.clip(fast, 0, 1)
    return frequency * (fast + (1 - fast) / scaling.factor)


def _by_dims(frequency: Array, base: float, scaling: YarnScaling) -> Array:
    """f32[dims / 2], radians a token; a ramp over the pairs between the two numbers of turns."""
    pairs = len(frequency)

    def pair(turns: float) -> float:  # that turns so often, counted from the fastest
        wave = scaling.trained_length / (turns * 2 * math.pi)
        return pairs * math.log(wave) / math.log(base)

    first, last = pair(scaling.fast_turns), pair(scaling.slow_turns)
    if scaling.whole_pairs:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    slow = (jnp.arange(pairs, dtype=jnp.float32) - first) / ((last - first) or 0.001)
    slow = jnp.clip(slow, 0, 1)
    return frequency * (1 - slow + slow / scaling.factor)


def rotate(x: Array, table: tuple[Array, Array]) -> Array:
    """Rotates the first dims of x [B, T, N, H], as many as the table has; the others pass.

    The halves convention (Llama as transformers stores it).
    """
    cos, sin = (part[:, :, None].astype(jnp.float32) for part in table)
    half = cos.shape[-1]
    first, second = jnp.split(x[..., : 2 * half].astype(jnp.float32), 2, axis=-1)
    out = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return jnp.concatenate([out.astype(x.dtype), x[..., 2 * half :]], axis=-1)
