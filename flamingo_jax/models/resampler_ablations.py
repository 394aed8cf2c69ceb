"""What the paper compared its resampler to: a Transformer and an MLP of the same size.

Paper: section 3.3, Table 3, row vi: "given a parameter budget"; no more is said of either, so:

* `transformer`: features and latents are one sequence, and all of it is updated, layer by layer,
  by plain self-attention. The latents leave it. A layer has the weights of a Perceiver layer.
* `mlp`: every feature passes the same residual feed-forward layers, alone. A hidden layer is wider
  by what attention's projections would have taken. As features cannot be summed up by an MLP of
  each, they stay P visual tokens a media item, and of a video each place's mean over the frames.

Their feed-forwards start random; those of the Perceiver Resampler start as nothing.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.config import ResamplerConfig
from flamingo_jax.core.attention import attend
from flamingo_jax.core.layers import FeedForward, Norm, Projection
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution, fold
from flamingo_jax.models.resampler import PerceiverResampler, Resampler

Array = jax.Array


class TransformerLayer(nnx.Module):
    """Pre-norm self-attention and feed-forward, both residual."""

    def __init__(self, config: ResamplerConfig, *, rngs: Rngs):
        width, heads = config.width, (config.num_heads, config.head_dim)
        self.norm = Norm(width)
        self.query = Projection([width], heads, ("embed", "heads", None), rngs=rngs)
        self.key = Projection([width], heads, ("embed", "heads", None), rngs=rngs)
        self.value = Projection([width], heads, ("embed", "heads", None), rngs=rngs)
        self.out = Projection(heads, [width], ("heads", None, "embed"), rngs=rngs)
        self.ffw_norm = Norm(width)
        self.ffw = FeedForward(width, config.ffw_multiplier * width, config.activation, rngs=rngs)

    def __call__(
        self,
        x: Array,  # [N, S, D]
        mask: Array | None,  # bool[N, S, S]
    ) -> Array:  # [N, S, D]
        y = self.norm(x)
        x = x + self.out(attend(self.query(y), self.key(y), self.value(y), mask))
        return x + self.ffw(self.ffw_norm(x))


class TransformerResampler(PerceiverResampler):
    """Latents as more tokens of a Transformer over the features."""

    layer = TransformerLayer

    def resample(self, features: Array, latents: Array, seen: Array | None) -> Array:
        x = jnp.concatenate([features, latents], axis=1)
        mask = None if seen is None else jnp.broadcast_to(seen[:, None], (*x.shape[:2], x.shape[1]))
        x, _ = fold(lambda x, layers, _: (layers[0](x, mask), None), x, [self.blocks])
        return x[:, features.shape[1] :]


class MLPLayer(nnx.Module):
    """A residual feed-forward with as many weights as a Perceiver layer."""

    def __init__(self, config: ResamplerConfig, *, rngs: Rngs):
        self.ffw_norm = Norm(config.width)
        self.ffw = FeedForward(config.width, mlp_hidden(config), config.activation, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return x + self.ffw(self.ffw_norm(x))


def mlp_hidden(config: ResamplerConfig) -> int:
    """Width of a hidden layer: the feed-forward's, and that of attention's four projections."""
    return config.ffw_multiplier * config.width + 2 * config.num_heads * config.head_dim


class MLPResampler(Resampler):
    """Every feature on its own; the visual tokens are the places of the grid."""

    layer = MLPLayer
    has_latents = False

    def __call__(
        self,
        features: Array,  # [B, M, F, P, E]
        frame_mask: Array | None = None,  # bool[B, M, F]
    ) -> Array:  # [B, M, P, D]
        x, _ = fold(lambda x, layers, _: (layers[0](x), None), self.embed(features), [self.blocks])
        return mean_over_frames(self.norm(x), frame_mask)


def mean_over_frames(x: Array, frame_mask: Array | None) -> Array:
    """[B, M, P, D] of x [B, M, F, P, D]; padding frames do not count, and none at all gives 0."""
    if frame_mask is None:
        return x.mean(axis=2)
    real = frame_mask.astype(x.dtype)[..., None, None]
    return (x * real).sum(axis=2) / jnp.maximum(real.sum(axis=2), 1)


RESAMPLERS: dict[str, type[Resampler]] = {
    "perceiver": PerceiverResampler,
    "transformer": TransformerResampler,
    "mlp": MLPResampler,
}


def make_resampler(
    config: ResamplerConfig, vision_width: int, execution: Execution, *, rngs: Rngs
) -> Resampler:
    """The resampler of the config's kind: features [B, M, F, P, E] to visual tokens."""
    return RESAMPLERS[config.kind](config, vision_width, execution, rngs=rngs)
