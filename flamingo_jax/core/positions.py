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

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.rope import rope_table, rotate

Array = jax.Array


class Unmarked(nnx.Module):
    """Attention that sees a set, but for the causal mask."""

    by_distance = False

    def __init__(self, config: LanguageModelConfig, *, rngs: Rngs):
        pass

    @staticmethod
    def shared(
        config: LanguageModelConfig,
        positions: Array,  # i32[B, T], or [1, T] where rows are alike
        slots: Array,  # i32[B, S], or [1, S]
        lengths: Array | None = None,  # i32[B, T or 1], tokens of each one's text, where asked for
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
    """Rotary embedding (`core.rope`) of the first `rope_dims` dims of each head."""

    @staticmethod
    def shared(config, positions, slots, lengths=None):
        dims = config.rope_dims or config.head_dim
        return rope_table(positions, dims, config.rope_base, config.rope_scaling, lengths)

    def __call__(self, q, k, shared):
        return rotate(q, shared), rotate(k, shared), None


class Alibi(Unmarked):
    """Attention with linear biases (Press et al. 2022): minus slope times distance."""

    by_distance = True

    @staticmethod
    def shared(config, positions, slots, lengths=None):
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
