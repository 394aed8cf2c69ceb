"""Next-token loss of a language model that is trained whole, its embedding too.

Beside `losses.next_token_loss`, whose output embedding is frozen but for a few rows. Here the rows
have a gradient as large as they are, so a chunk's scores are made again on the way back.
"""

import jax
import jax.numpy as jnp

from flamingo_jax.core.partition import constrain
from flamingo_jax.core.softcap import softcap
from flamingo_jax.train.losses import CHUNK_TOKENS, chunk_size

Array = jax.Array


def token_loss(
    hidden: Array,  # [B, T, D]
    rows: Array,  # f32[V, D], the output embedding
    targets: Array,  # i32[B, T], the token after each
    weights: Array,  # f32[B, T], what its loss counts; 0 where it does not
    *,
    cap: float | None = None,  # bound of the scores (`core.softcap`)
    shards: int = 1,  # among which B is cut
    chunk_tokens: int = CHUNK_TOKENS,  # of a shard, whose scores are held at a time; at most
) -> tuple[Array, Array]:
    """Negative log-likelihoods in nats: their weighted sum, f32[], and each, f32[B, T]."""
    b, t = targets.shape
    num = b * t // shards
    size = chunk_size(num, chunk_tokens)
    num_chunks = -(-num // size)
    table = rows.astype(hidden.dtype)

    def chunks(x: Array) -> Array:  # [B, T, ...] to [chunks, shards, size, ...]
        x = x.reshape(shards, num, *x.shape[2:])
        x = constrain(x, "batch", *[None] * (x.ndim - 1))
        x = jnp.pad(x, [(0, 0), (0, num_chunks * size - num)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(shards, num_chunks, size, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def of_chunk(table: Array, h: Array, target: Array) -> Array:
        scores = jnp.einsum("scd,vd->scv", h, table, preferred_element_type=jnp.float32)
        scores = softcap(scores, cap)
        right = jnp.take_along_axis(scores, target[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(scores, axis=-1) - right

    def add(total: Array, chunk: tuple[Array, ...]) -> tuple[Array, Array]:
        h, target, weight = chunk
        each = of_chunk(table, h, target)
        return total + (weight * each).sum(), each

    start = jnp.zeros((), jnp.float32)
    total, each = jax.lax.scan(add, start, tuple(map(chunks, (hidden, targets, weights))))
    each = jnp.moveaxis(each, 0, 1).reshape(shards, -1)[:, :num]
    return total, each.reshape(b, t)
