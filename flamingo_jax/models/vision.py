"""The frozen vision encoder: pictures and frames in, a flat grid of features out.

Paper: section 2.1 and appendix A.1.1 (NFNet-F6; frames are encoded one by one). The encoder behind
the interface is chosen by config; each is one file beside this one.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.config import VisionConfig
from flamingo_jax.models.efficientnet_lite import EfficientNetLite

Array = jax.Array


class VisionEncoder(nnx.Module):
    """u8[B, M, F, H, W, 3] to [B, M, F, P, E], with no gradient to anything before."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = EfficientNetLite(config.variant, rngs=rngs)
        self.channels = ChannelStatistics(config.width) if config.standardize else None

    def __call__(self, pixels: Array, dtype: jnp.dtype = jnp.float32) -> Array:
        """Features as the encoder makes them, before `standardize`; the ones to cache."""
        pp = self.config.preprocessing
        b, m, f, *image = pixels.shape
        x = pixels.reshape(b * m * f, *image).astype(jnp.float32) / 255
        x = (x - jnp.array(pp.mean)) / jnp.array(pp.std)
        features = self.encoder(x.astype(dtype))
        return jax.lax.stop_gradient(features).reshape(b, m, f, *features.shape[1:])

    def standardize(self, features: Array) -> Array:
        """Zero mean and unit variance a channel over the training pictures, where configured."""
        if self.channels is None:
            return features
        mean, std = self.channels.mean[...], self.channels.std[...]
        return (features - mean.astype(features.dtype)) / std.astype(features.dtype)


class ChannelStatistics(nnx.Module):
    """Mean and standard deviation of each feature channel over the training pictures; frozen."""

    def __init__(self, width: int):
        self.mean = nnx.Param(jnp.zeros(width), logical_axes=(None,))
        self.std = nnx.Param(jnp.ones(width), logical_axes=(None,))
