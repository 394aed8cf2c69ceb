"""GATED XATTN-DENSE: the trained block that lets a frozen language model look at media.

Paper: section 2.2, figure 4, appendix A.1.2. Two residual branches, cross-attention and
feed-forward, each times the tanh of a learned scalar that starts at zero, so that training starts
from exactly the frozen language model. Pre-norm on queries, on keys and values together (v1 of the
paper), and on the feed-forward's input; no biases in linear maps (the paper is silent).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.config import CrossAttentionConfig
from flamingo_jax.core.attention import attend
from flamingo_jax.core.layers import FeedForward, Norm, Projection

Array = jax.Array


class MediaKeys(NamedTuple):
    """Keys and values of all media of a sequence, flat: computed once a prompt, read every step."""

    key: Array  # [B, M * R, N, H]
    value: Array  # [B, M * R, N, H]


class GatedCrossAttention(nnx.Module):
    """One block, to stand before a frozen language-model block of width `width`."""

    def __init__(
        self, config: CrossAttentionConfig, width: int, media_width: int, *, rngs: nnx.Rngs
    ):
        heads = (config.num_heads, config.head_dim)
        self.branch_scale = config.branch_scale
        self.norm = Norm(width)
        self.media_norm = Norm(media_width) if config.normalize_media else None
        self.query = Projection([width], heads, ("embed", "heads", None), rngs=rngs)
        self.key = Projection([media_width], heads, (None, "heads", None), rngs=rngs)
        self.value = Projection([media_width], heads, (None, "heads", None), rngs=rngs)
        self.out = Projection(heads, [width], ("heads", None, "embed"), rngs=rngs)
        self.attention_gate = nnx.Param(jnp.zeros(()), logical_axes=())
        self.ffw_norm = Norm(width)
        self.ffw = FeedForward(width, config.ffw_multiplier * width, config.activation, rngs=rngs)
        self.ffw_gate = nnx.Param(jnp.zeros(()), logical_axes=())

    def media_keys(self, media: Array) -> MediaKeys:
        """Keys and values of visual tokens [B, M * R, D_media]."""
        media = media if self.media_norm is None else self.media_norm(media)
        return MediaKeys(self.key(media), self.value(media))

    def __call__(
        self,
        x: Array,  # [B, T, D]
        media: MediaKeys,
        mask: Array,  # bool[B, T, M * R]
    ) -> Array:  # [B, T, D]
        with jax.named_scope("gated_xattn"):
            seen = self.out(attend(self.query(self.norm(x)), media.key, media.value, mask))
            x = x + self._gate(self.attention_gate, x) * seen
            return x + self._gate(self.ffw_gate, x) * self.ffw(self.ffw_norm(x))

    def _gate(self, alpha: nnx.Param, x: Array) -> Array:
        """What multiplies a branch: tanh(alpha), in float32, times the configured scale."""
        gate = self.branch_scale * jnp.tanh(alpha[...].astype(jnp.float32))
        return gate.astype(x.dtype)
