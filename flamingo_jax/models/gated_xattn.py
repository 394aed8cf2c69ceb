"""GATED XATTN-DENSE: the trained block that lets a frozen language model look at media.

Paper: section 2.2, figure 4, appendix A.1.2. Two residual branches, cross-attention and
feed-forward, each times the tanh of a learned scalar that starts at zero, so that training starts
from exactly the frozen language model. Pre-norm on queries, on keys and values together (v1 of the
paper), and on the feed-forward's input; no biases in linear maps (the paper is silent).

`CrossAttention` is the first branch alone, for the paper's ablations; `gating="none"` leaves out
the tanh and its scalar, and with them the start from the frozen language model (Table 3, row iii).

IDEFICS, a reproduction, made its blocks of what its language model is made of: RMS norms, also of
each head's queries and keys, and SwiGLU. Those are settings here, off by default.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.config import CrossAttentionConfig
from flamingo_jax.core.attention import attend
from flamingo_jax.core.layers import FeedForward, Norm, Projection
from flamingo_jax.core.partition import RESIDUAL, constrain
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.models.media_mask import over_latents
from flamingo_jax.models.own_media import attend_to_own

Array = jax.Array


class MediaItems(NamedTuple):
    """Visual tokens of media in one list a device, of which rows of text name theirs.

    So rows may have unequal numbers of media, and nothing is computed for those that are missing.
    """

    tokens: Array  # [I, R, D_media]
    items: Array  # i32[B, M], a row's media among those of its device


class MediaKeys(NamedTuple):
    """Keys and values of all media of a sequence, flat: computed once a prompt, read every step.

    A row may serve several neighbouring rows of text, such as the beams that go on from a prompt.
    """

    key: Array  # [B, M * R, N, H]; of `MediaItems` [I, R, N, H]
    value: Array  # as `key`
    items: Array | None = None  # i32[B, M], of `MediaItems`


class CrossAttention(nnx.Module):
    """Text of width `width` looks at media; residual."""

    def __init__(self, config: CrossAttentionConfig, width: int, media_width: int, *, rngs: Rngs):
        heads = (config.num_heads, config.head_dim)
        self.branch_scale, self.attends = config.branch_scale, config.attend
        self.norm = make_norm(config, width)
        self.media_norm = make_norm(config, media_width) if config.normalize_media else None
        self.query = Projection([width], heads, ("embed", "heads", None), rngs=rngs)
        self.key = Projection([media_width], heads, (None, "heads", None), rngs=rngs)
        copy = {"init": config.values_init, "rngs": rngs}
        self.value = Projection([media_width], heads, (None, "heads", None), **copy)
        self.out = Projection(heads, [width], ("heads", None, "embed"), **copy)
        self.query_norm = make_norm(config, config.head_dim) if config.qk_norm else None
        self.key_norm = make_norm(config, config.head_dim) if config.qk_norm else None
        self.attention_gate = _shut(config, width)

    def media_keys(self, media: Array) -> MediaKeys:
        """Keys and values of visual tokens [B, M * R, D_media], or [I, R, D_media]."""
        media = media if self.media_norm is None else self.media_norm(media)
        key = self.key(media)
        return MediaKeys(key if self.key_norm is None else self.key_norm(key), self.value(media))

    def __call__(
        self,
        x: Array,  # [B, T, D]
        media: MediaKeys | None,  # None: the batch has no place for media, so nothing is added
        mask: Array,  # bool[B, T, M]
    ) -> Array:  # [B, T, D]
        if media is None:
            return x
        with jax.named_scope("cross_attention"):
            x = constrain(x, *RESIDUAL)
            query = constrain(self.query(self.norm(x)), "batch", None, "heads", None)
            query = query if self.query_norm is None else self.query_norm(query)
            seen = self.out(self._look(query, media, mask))
            return constrain(self._add(x, self.attention_gate, seen), *RESIDUAL)

    def _look(self, query: Array, media: MediaKeys, mask: Array) -> Array:
        if media.items is not None:
            return attend_to_own(query, media.key, media.value, mask, media.items)
        shape, rows = query.shape, media.key.shape[0]
        query, mask = (x.reshape(rows, -1, *x.shape[2:]) for x in (query, mask))
        if self.attends == "last":
            seen = attend_to_own(query, media.key, media.value, mask)
        else:
            mask = over_latents(mask, media.key.shape[1] // mask.shape[-1])
            seen = attend(query, media.key, media.value, mask)
        return seen.reshape(shape)

    def _add(self, x: Array, alpha: nnx.Param | None, branch: Array) -> Array:
        """`x` plus a branch times tanh(alpha) and the configured scale.

        Multiplied in float32, for the gate's gradient is a sum over every number of the branch.
        """
        gate = 1.0 if alpha is None else jnp.tanh(alpha[...].astype(jnp.float32))
        gated = self.branch_scale * gate * branch.astype(jnp.float32)
        return x + gated.astype(x.dtype)


class GatedCrossAttention(CrossAttention):
    """One whole block, to stand before a frozen language-model block of width `width`."""

    def __init__(self, config: CrossAttentionConfig, width: int, media_width: int, *, rngs: Rngs):
        super().__init__(config, width, media_width, rngs=rngs)
        self.ffw_norm = make_norm(config, width)
        hidden = config.hidden_width(width)
        self.ffw = FeedForward(width, hidden, config.activation, gated=config.gated_ffw, rngs=rngs)
        self.ffw_gate = _shut(config, width)

    def __call__(self, x: Array, media: MediaKeys | None, mask: Array) -> Array:
        with jax.named_scope("gated_xattn"):
            x = super().__call__(x, media, mask)
            return self._add(x, self.ffw_gate, self.ffw(self.ffw_norm(x)))


def make_norm(config: CrossAttentionConfig, width: int) -> Norm:
    """As all of a block's norms are."""
    return Norm(width, config.norm, config.norm_eps)


def _shut(config: CrossAttentionConfig, width: int) -> nnx.Param | None:
    """A branch's gate at its start, tanh(0) = 0: a scalar, or one a channel; None without gates."""
    if config.gating != "tanh":
        return None
    if config.gate_per_channel:
        return nnx.Param(jnp.zeros(width), logical_axes=(None,))
    return nnx.Param(jnp.zeros(()), logical_axes=())
