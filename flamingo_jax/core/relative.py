"""Relative positions of Transformer-XL (Dai et al. 2019), as Gopher and Chinchilla have them.

The logit of query i and key j is, before scaling by H ** -0.5,

    (q_i + u) . k_j + (q_i + v) . W r_{i-j}

where r_d holds the sines and cosines of distance d, W is a D x D projection, and u and v are one
bias a head. Each layer has its own W, u and v: only with a W a layer do the published parameter
counts come out (13 D ** 2 a layer), and whether u and v are shared no paper says.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core.layers import Projection, add_rows
from flamingo_jax.core.positions import Unmarked
from flamingo_jax.core.rngs import Rngs

Array = jax.Array


class Waves(NamedTuple):
    """Sinusoids for the two ways to the second term of the logit, `whole` and `step`."""

    distance: Array | None  # f32[S, D] of distances S - 1 to 0; None where T < S
    query: Array  # f32[B, T, D] of the queries' positions; or [1, T, D], where rows are alike
    key: Array  # f32[B, S, D] of the slots' positions; or [1, S, D]


def sinusoids(positions: Array, width: int) -> Array:
    """f32[..., width]: sines, then cosines, of wavelengths 2 pi to 2 pi 10,000."""
    frequency = 10_000.0 ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angle = positions[..., None].astype(jnp.float32) * frequency
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class Relative(Unmarked):
    """Content bias u, position bias v and the projection W of one layer."""

    by_distance = True

    def __init__(self, config: LanguageModelConfig, *, rngs: Rngs):
        n, h = config.num_heads, config.head_dim
        self.key = Projection([config.width], [n, h], ("embed", "heads", None), rngs=rngs)
        self.content_bias = nnx.Param(jnp.zeros((n, h)), logical_axes=("heads", None))
        self.position_bias = nnx.Param(jnp.zeros((n, h)), logical_axes=("heads", None))

    @staticmethod
    def shared(config, positions, slots, lengths=None):
        """Both ways agree where the real tokens of a row stand side by side."""
        t, s = positions.shape[1], slots.shape[1]
        distance = sinusoids(jnp.arange(s)[::-1], config.width) if t == s else None
        return Waves(distance, sinusoids(positions, config.width), sinusoids(slots, config.width))

    def __call__(self, q, k, shared):
        asked = add_rows(q, self.position_bias[...]) * q.shape[-1] ** -0.5
        bias = self.step(asked, shared) if shared.distance is None else self.whole(asked, shared)
        return add_rows(q, self.content_bias[...]), k, bias

    def whole(self, q: Array, waves: Waves) -> Array:
        """A whole sequence: project the S distances, then shift row t left by S - 1 - t."""
        far = self.key(waves.distance.astype(q.dtype))
        logits = jnp.einsum("btnh,snh->bnts", q, far, preferred_element_type=jnp.float32)
        return shift(logits)

    def step(self, q: Array, waves: Waves) -> Array:
        """Few queries, many slots: W goes to the queries, not to the S distances.

        By the sum rule of sines a rotation by the query's position is left and a product with the
        key's sinusoids, which holds for any gaps between the tokens.
        """
        g = jnp.einsum("btnh,dnh->btnd", q, self.key.kernel[...].astype(q.dtype))
        g_sin, g_cos = jnp.split(g.astype(jnp.float32), 2, axis=-1)
        sin, cos = jnp.split(waves.query[:, :, None], 2, axis=-1)
        g = jnp.concatenate([g_cos * sin - g_sin * cos, g_sin * sin + g_cos * cos], axis=-1)
        key = waves.key.astype(q.dtype)
        return jnp.einsum(
            "btnd,bsd->bnts", g.astype(q.dtype), key, preferred_element_type=jnp.float32
        )


def shift(logits: Array) -> Array:
    """From column c for distance T - 1 - c to column s for key s, in square [..., T, T].

    Right of the diagonal (keys to come, which the causal mask hides) other rows' values stand.

        a0 a1 a2      a2  0 b0
        b0 b1 b2  ->  b1 b2  0
        c0 c1 c2      c0 c1 c2
    """
    *lead, t, s = logits.shape
    padded = jnp.pad(logits, [(0, 0)] * len(lead) + [(0, 0), (1, 0)])
    return padded.reshape(*lead, s + 1, t)[..., 1:, :].reshape(*lead, t, s)
