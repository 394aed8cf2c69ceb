"""How self-attention learns of order: rotary, ALiBi, relative (`core.relative`) or not at all.

Each kind is two pieces. `shared` runs once for all blocks, on the positions of the queries and of
the cache slots (which count real tokens only); the module itself runs in each block and returns its
queries and keys, and a float32 bias on the logits or None. Learned absolute positions are rows
added to the embeddings, in `models.lm`; their blocks are `Unmarked`.

A kind that goes `by_distance` alone may be given the numbers of the slots in the place of
positions, where the real tokens of each row stand side by side. Then all rows are alike, and one.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flamingo_jax.config import LanguageModelConfig, LinearScaling, RopeScaling

Array = jax.Array


class Unmarked(nnx.Module):
    """Attention that sees a set, but for the causal mask."""

    by_distance = False

    def __init__(self, config: LanguageModelConfig, *, rngs: nnx.Rngs):
        pass

    @staticmethod
    def shared(
        config: LanguageModelConfig,
        positions: Array,  # i32[B, T], or [1, T] where rows are alike
        slots: Array,  # i32[B, S], or [1, S]
    ) -> Any:
        """What all blocks use alike; here nothing."""

    def __call__(
        self,
        q: Array,  # [B, T, N, H]
        k: Array,  # [B, T, K, H]
        shared: Any,
    ) -> tuple[Array, Array, Array | None]:
        """Queries, keys, and the bias f32[B or 1, N, T, S] if there is one."""
        return q, k, None


class Rotary(Unmarked):
    """Rotary embedding (Su et al. 2021) of the first `rope_dims` dims of each head."""

    @staticmethod
    def shared(config, positions, slots):
        dims = config.rope_dims or config.head_dim
        return rope_table(positions, dims, config.rope_base, config.rope_scaling)

    def __call__(self, q, k, shared):
        return rotate(q, shared), rotate(k, shared), None


class Alibi(Unmarked):
    """Attention with linear biases (Press et al. 2022): minus slope times distance."""

    by_distance = True

    @staticmethod
    def shared(config, positions, slots):
        return positions, slots

    def __call__(self, q, k, shared):
        positions, slots = shared
        distance = (positions[:, :, None] - slots[:, None]).astype(jnp.float32)
        return q, k, -alibi_slopes(q.shape[2])[:, None, None] * distance[:, None]


def alibi_slopes(num_heads: int) -> np.ndarray:
    """f32[N]: 2 ** (-8 h / N) for h = 1 to N; other N than powers of two skip every other slope."""
    whole = 2 ** math.ceil(math.log2(num_heads))
    slopes = 2.0 ** (-8 * np.arange(1, whole + 1, dtype=np.float32) / whole)
    if whole != num_heads:
        slopes = np.concatenate([slopes[1::2], slopes[::2]])[:num_heads]
    return slopes.astype(np.float32)


def rope_table(
    positions: Array, dims: int, base: float, scaling: RopeScaling | None = None
) -> tuple[Array, Array]:
    """Cosines and sines f32[B, T, dims / 2] of rotary embedding at `positions` i32[B, T]."""
    frequency = base ** (-jnp.arange(0, dims, 2, dtype=jnp.float32) / dims)
    if scaling is not None:
        frequency = scaled(frequency, scaling)
    angle = positions[..., None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def scaled(frequency: Array, scaling: RopeScaling) -> Array:
    """f32[dims / 2], radians a token, as this kind slows them down."""
    if isinstance(scaling, LinearScaling):
        return frequency / scaling.factor
    turns = frequency * scaling.trained_length / (2 * math.pi)
    fast = (turns - scaling.slow_turns) / (scaling.fast_turns - scaling.slow_turns)
    fast = jnp.clip(fast, 0, 1)
    return frequency * (fast + (1 - fast) / scaling.factor)


def rotate(x: Array, table: tuple[Array, Array]) -> Array:
    """Rotates the first dims of x [B, T, N, H], as many as the table has; the others pass.

    The halves convention (Llama as transformers stores it).
    """
    cos, sin = (part[:, :, None].astype(jnp.float32) for part in table)
    half = cos.shape[-1]
    first, second = jnp.split(x[..., : 2 * half].astype(jnp.float32), 2, axis=-1)
    out = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return jnp.concatenate([out.astype(x.dtype), x[..., 2 * half :]], axis=-1)
