"""Log-likelihood of given text, token by token."""

import jax
import jax.numpy as jnp

from flamingo_jax.batch import Batch
from flamingo_jax.core.partition import batch_shards, constrain
from flamingo_jax.models.flamingo import Flamingo

Array = jax.Array
_CHUNK = 128  # tokens whose logits are there at once, a float32 for every word of each


def token_log_probs(model: Flamingo, batch: Batch) -> Array:
    """f32[B, T] natural log of each token's probability given those before; column 0 is 0."""
    tokens = jnp.asarray(batch.tokens)
    return jnp.pad(log_probs(model, model.hidden(batch)[:, :-1], tokens[:, 1:]), [(0, 0), (1, 0)])


def log_probs(
    model: Flamingo,
    hidden: Array,  # [B, T, D]
    following: Array,  # i32[B, T], the token after each
) -> Array:  # f32[B, T]
    """Natural log of the probability of each following token; never all logits at once.

    Tokens stay on the devices that their rows are cut among.
    """
    shards = batch_shards()
    num = following.size // shards
    size = min(_CHUNK, num)
    padding = -num % size

    def chunks(x: Array, *shape: int) -> Array:  # [chunks, shards, size, ...]
        flat = constrain(x.reshape(shards, num, *shape), "batch", None, *[None] * len(shape))
        flat = jnp.pad(flat, [(0, 0), (0, padding), *[(0, 0)] * len(shape)])
        return jnp.moveaxis(flat.reshape(shards, -1, size, *shape), 1, 0)

    def of_chunk(args: tuple[Array, Array]) -> Array:
        hidden, following = args
        logits = model.logits(hidden)
        found = jnp.take_along_axis(logits, following[..., None], axis=-1)[..., 0]
        return found - jax.nn.logsumexp(logits, axis=-1)

    found = jax.lax.map(of_chunk, (chunks(hidden, hidden.shape[-1]), chunks(following)))
    found = jnp.moveaxis(found, 0, 1).reshape(shards, -1)[:, :num]
    return found.reshape(following.shape)
