"""Perceiver Resampler: any number of visual features to a fixed number of visual tokens.

Paper: section 2.1, appendix A.1.1, figure 5. Learned latents attend to the features *and* to
themselves (keys and values are the concatenation), layer after layer; features are not updated.
A learned temporal embedding is added per frame, none per place: convolutional features carry it.

Where the paper is silent, as its reproductions do: pre-norm with separate layer norms for features
and latents, one more norm on the output, no biases in linear maps. Features whose width is not the
resampler's pass through a linear projection, which Table 5's parameter count needs. Feed-forwards
start as nothing: what a squared ReLU adds is much the same for all media, and cross-attention would
first learn it as a bias. What the paper compared it to is in `resampler_ablations.py`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.config import ResamplerConfig
from flamingo_jax.core.attention import attend
from flamingo_jax.core.layers import FeedForward, Norm, Projection, add_rows, embedding_rows
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution, Stack, fold

Array = jax.Array


class PerceiverLayer(nnx.Module):
    """Latents attend to features and latents, then a feed-forward; both residual."""

    def __init__(self, config: ResamplerConfig, *, rngs: Rngs):
        width, heads = config.width, (config.num_heads, config.head_dim)
        self.media_norm = Norm(width) if config.normalize_media else None
        self.latents_norm = Norm(width)
        self.query = Projection([width], heads, ("embed", "heads", None), rngs=rngs)
        self.key = Projection([width], heads, ("embed", "heads", None), rngs=rngs)
        self.query_norm = Norm(config.head_dim) if config.qk_norm else None
        self.key_norm = Norm(config.head_dim) if config.qk_norm else None
        copy = {"init": config.values_init, "rngs": rngs}
        self.value = Projection([width], heads, ("embed", "heads", None), **copy)
        self.out = Projection(heads, [width], ("heads", None, "embed"), **copy)
        self.ffw_norm = Norm(width)
        hidden = config.ffw_multiplier * width
        self.ffw = FeedForward(width, hidden, config.activation, down_init="zeros", rngs=rngs)

    def __call__(
        self,
        latents: Array,  # [N, R, D]
        features: Array,  # [N, S, D]
        mask: Array | None,  # bool[N, R, S + R]
    ) -> Array:  # [N, R, D]
        queries = self.latents_norm(latents)
        features = features if self.media_norm is None else self.media_norm(features)
        keys = jnp.concatenate([features, queries], axis=1)
        q, k, v = self.query(queries), self.key(keys), self.value(keys)
        if self.query_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        seen = attend(q, k, v, mask)
        latents = latents + self.out(seen)
        return latents + self.ffw(self.ffw_norm(latents))


class Resampler(nnx.Module):
    """What all kinds share: features to the resampler's width, a stack of layers, a last norm."""

    layer: type[nnx.Module]
    has_latents = True

    def __init__(
        self, config: ResamplerConfig, vision_width: int, execution: Execution, *, rngs: Rngs
    ):
        self.config = config
        width = config.width
        self.project = (
            Projection([vision_width], [width], (None, "embed"), rngs=rngs)
            if vision_width != width
            else None
        )
        self.latents = embedding_rows(config.num_latents, width, rngs) if self.has_latents else None
        self.frame_embeddings = (
            embedding_rows(config.num_frames, width, rngs) if config.num_frames else None
        )
        self.blocks = Stack(
            lambda rngs: self.layer(config, rngs=rngs), config.depth, execution, rngs
        )
        self.norm = Norm(width)

    def embed(self, features: Array) -> Array:
        """[B, M, F, P, D] of features [B, M, F, P, E], with what tells the frames apart."""
        x = features if self.project is None else self.project(features)
        if self.frame_embeddings is None:
            return x
        embeddings = frames_for(
            self.frame_embeddings[...],
            x.shape[2],
            interpolate=self.config.interpolate_frames,
        )
        return add_rows(x, embeddings[:, None])


class PerceiverResampler(Resampler):
    """[B, M, F, P, E] features of M media of F frames to [B, M, R, D] visual tokens."""

    layer = PerceiverLayer

    def __call__(
        self,
        features: Array,  # [B, M, F, P, E]
        frame_mask: Array | None = None,  # bool[B, M, F], False on padding frames
    ) -> Array:  # [B, M, R, D]
        b, m, f, p, _ = features.shape
        r, width = self.config.num_latents, self.config.width
        x = self.embed(features).reshape(b * m, f * p, width)
        latents = jnp.broadcast_to(self.latents[...], (b * m, r, width)).astype(x.dtype)
        seen = None
        if f > 1 and frame_mask is not None:
            real = jnp.repeat(frame_mask.reshape(b * m, f), p, axis=-1)
            seen = jnp.concatenate([real, jnp.ones((b * m, r), bool)], axis=-1)
        return self.norm(self.resample(x, latents, seen)).reshape(b, m, r, width)

    def resample(
        self,
        features: Array,  # [N, S, D]
        latents: Array,  # [N, R, D]
        seen: Array | None,  # bool[N, S + R], False on features of padding frames
    ) -> Array:  # [N, R, D]
        """The latents after all layers."""
        mask = None
        if seen is not None:
            mask = jnp.broadcast_to(seen[:, None], (*latents.shape[:2], seen.shape[-1]))
        latents, _ = fold(
            lambda latents, layers, _: (layers[0](latents, features, mask), None),
            latents,
            [self.blocks],
        )
        return latents


def frames_for(embeddings: Array, num_frames: int, *, interpolate: bool) -> Array:
    """Temporal embeddings [F, D] for `num_frames` frames, from the F0 learned ones.

    Up to F0 frames take the first ones (an image is a video of one frame). More are interpolated
    linearly with the first and the last frame fixed (the paper: 8 learned, 30 at inference).

    Raises:
      ValueError: more frames than embeddings, and interpolation is off.
    """
    learned = embeddings.shape[0]
    if num_frames <= learned:
        return embeddings[:num_frames]
    if not interpolate:
        raise ValueError(
            f"{num_frames} frames, but resampler.num_frames={learned}: use up to {learned}, "
            "or set resampler.interpolate_frames=True"
        )
    place = jnp.linspace(0.0, learned - 1.0, num_frames)
    low = (
        jnp.minimum(place.astype(jnp.int32), learned - 2)
        if learned > 1
        else jnp.zeros(num_frames, int)
    )
    high = jnp.minimum(low + 1, learned - 1)
    share = (place - low)[:, None]
    return (1 - share) * embeddings[low] + share * embeddings[high]
