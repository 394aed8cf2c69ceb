"""The contrastive model: pictures and texts as points of one space, whose nearness is scored.

Paper: section 2.1 and appendix B.1.3. The encoder's features are averaged over places and the text
tower's states over tokens; a linear map each takes both to one width. A learned inverse temperature
scales their cosines. Afterwards the vision encoder alone is kept, for Flamingo.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.contrastive_config import TwoTowersConfig
from flamingo_jax.core.layers import Projection
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution
from flamingo_jax.models import vision
from flamingo_jax.models.text_tower import TextTower

Array = jax.Array


class TwoTowers(nnx.Module):
    """Embeddings of pictures and of texts, float32 and of any length."""

    def __init__(
        self,
        config: TwoTowersConfig,
        execution: Execution,
        *,
        dtype: jnp.dtype | str = jnp.float32,
        rngs: Rngs,
    ):
        self.config, self.dtype = config, jnp.dtype(dtype)
        self.encoder = vision.make_encoder(config.vision, execution, trained=True, rngs=rngs)
        joint = ([config.joint_width], (None, None))
        self.picture_projection = Projection([config.vision.width], *joint, rngs=rngs)
        self.text = TextTower(config.text, execution, rngs=rngs)
        self.text_projection = Projection([config.text.width], *joint, rngs=rngs)
        log_scale = jnp.log(jnp.float32(config.inverse_temperature))
        self.log_inverse_temperature = nnx.Param(log_scale, logical_axes=())

    @property
    def inverse_temperature(self) -> Array:  # f32[]
        return jnp.exp(self.log_inverse_temperature[...])

    def embed_pictures(
        self,
        pixels: Array,  # u8[N, H, W, 3]
        key: Array | None = None,  # in training, of an encoder with stochastic depth
    ) -> Array:  # f32[N, J]
        x = vision.normalized(pixels, self.config.vision.preprocessing).astype(self.dtype)
        features = self.encoder(x) if key is None else self.encoder(x, key)
        return self.picture_projection(features.astype(jnp.float32).mean(1))

    def embed_texts(
        self,
        tokens: Array,  # i32[N, T]
        mask: Array,  # bool[N, T], False on padding
    ) -> Array:  # f32[N, J]
        states = self.text(tokens, mask, self.dtype).astype(jnp.float32)
        count = jnp.maximum(mask.sum(1, keepdims=True), 1)
        return self.text_projection((states * mask[..., None]).sum(1) / count)
