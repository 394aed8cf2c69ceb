"""Next-token loss of a language model that is trained whole, its embedding too.

Beside `losses.next_token_loss`, whose output embedding is frozen but for a few rows. Here the rows
have a gradient as large as they are, so a chunk's scores are made again on the way back.
"""

import jax
import jax.numpy as jnp

from flamingo_jax.core.partition import constrain
from flamingo_jax.core.softcap import softcap
from flamingo_jax.train.losses import CHUNK_TOKENS, chunk_size, next_token_targets

Array = jax.Array


def token_loss(
    hidden: Array,  # [B, T, D]
    rows: Array,  # f32[V, D], the output embedding
    tokens: Array,  # i32[B, T]
    loss_mask: Array,  # bool[B, T], True where the prediction of this token counts
    *,
    cap: float | None = None,  # bound of the scores (`core.softcap`)
    shards: int = 1,  # among which B is cut
    chunk_tokens: int = CHUNK_TOKENS,  # of a shard, whose scores are held at a time; at most
) -> tuple[Array, Array]:
    """(sum of negative log-likelihoods in nats, number of targets), both f32 scalars."""
    b, t = tokens.shape
    targets, weights = next_token_targets(tokens, loss_mask)
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
    def of_chunk(table: Array, h: Array, target: Array, weight: Array) -> Array:
        scores = jnp.einsum("scd,vd->scv", h, table, preferred_element_type=jnp.float32)
        scores = softcap(scores, cap)
        right = jnp.take_along_axis(scores, target[..., None], axis=-1)[..., 0]
        return (weight * (jax.nn.logsumexp(scores, axis=-1) - right)).sum()

    def add(total: Array, chunk: tuple[Array, ...]) -> tuple[Array, None]:
        return total + of_chunk(table, *chunk), None

    start = jnp.zeros((), jnp.float32)
    total, _ = jax.lax.scan(add, start, tuple(map(chunks, (hidden, targets, weights))))
    return total, weights.sum()
