"""Log-likelihood of given text, token by token."""

import jax
import jax.numpy as jnp

from flamingo_jax.batch import Batch
from flamingo_jax.models.flamingo import Flamingo

Array = jax.Array


def token_log_probs(model: Flamingo, batch: Batch) -> Array:
    """f32[B, T] natural log of each token's probability given those before; column 0 is 0."""
    log_probs = jax.nn.log_softmax(model(batch)[:, :-1])
    tokens = jnp.asarray(batch.tokens)[:, 1:, None]
    found = jnp.take_along_axis(log_probs, tokens, axis=-1)[..., 0]
    return jnp.pad(found, [(0, 0), (1, 0)])
