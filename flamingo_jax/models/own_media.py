"""Attention of each text token to its own media and no other, at a cost that is theirs alone.

Paper: section 2.1 shows text one image; v1 remarks that it computes attention to all of them and
masks, and that attending to the one would be smarter. This is that: rows are regrouped into short
blocks of tokens that share a media item, and each block meets the keys of its item only.

    tokens    a b c d e f g       media of each: 1 1 1 2 2 2 2, blocks of two
    places    a b c . d e f g     blocks read      1   1   2   2

A block is so short that unfilled places are at most a quarter of the tokens. So 33 media cost at
most 1.25 times what one does, where masking costs 33 times. What stands nowhere, as text before the
first media, is regrouped with the rest and zeroed at the end.
"""

import jax
import jax.numpy as jnp

from flamingo_jax.core.attention import attend
from flamingo_jax.core.partition import on_shards

Array = jax.Array


def attend_to_own(
    q: Array,  # [B, T, N, H]
    key: Array,  # [B, M * R, N, H]; with `items` [I, R, N, H]
    value: Array,  # as `key`
    mask: Array,  # bool[B, T, M], True for one media item of a token, or for none
    items: Array | None = None,  # i32[B, M], a row's media among the I of its device
) -> Array:  # [B, T, N, H], exactly zero for a token without media
    """Softmax over the R visual tokens of each text token's media."""
    heads, rows = ("batch", None, "heads", None), ("batch", None, None)
    args, in_axes = (q, key, value, mask), (heads, heads, heads, rows)
    if items is not None:
        args, in_axes = (*args, items), (*in_axes, rows[:2])
    return on_shards(_attend_to_own, in_axes, heads)(*args)


def _attend_to_own(
    q: Array, key: Array, value: Array, mask: Array, items: Array | None = None
) -> Array:
    b, t, n, h = q.shape
    num_media = mask.shape[-1]
    sees = mask.any(-1)[..., None, None]
    if num_media == 1:
        key, value = (x if items is None else x[items[:, 0]] for x in (key, value))
        return jnp.where(sees, attend(q, key, value), 0)
    size = block_size(t, num_media)
    num_blocks = (t + num_media * (size - 1)) // size
    place, block_media = regroup(jnp.argmax(mask, axis=-1), num_media, size, num_blocks)
    rows = jnp.arange(b)[:, None]
    source = jnp.zeros((b, num_blocks * size), jnp.int32).at[rows, place].set(jnp.arange(t))
    blocks = _pick(q, source).reshape(b * num_blocks, size, n, h)

    def of_blocks(x: Array) -> Array:  # [B * blocks, R, N, H]
        if items is None:
            x = _pick(x.reshape(b, num_media, -1, n, h), block_media)
        else:
            x = x[_pick(items, block_media)]
        return x.reshape(b * num_blocks, -1, n, h)

    out = attend(blocks, of_blocks(key), of_blocks(value))
    return jnp.where(sees, _pick(out.reshape(b, num_blocks * size, n, h), place), 0)


def block_size(num_tokens: int, num_media: int) -> int:
    """Tokens of a block: the power of two that leaves at most a quarter more places than tokens."""
    return 1 << ((1 + num_tokens // (4 * num_media)).bit_length() - 1)


def regroup(
    media: Array,  # i32[B, T], from 0
    num_media: int,
    size: int,
    num_blocks: int,
) -> tuple[Array, Array]:  # i32[B, T], i32[B, num_blocks]
    """The place of each token, and the media of each block: tokens of a media item in whole blocks.

    Tokens keep their order; media stand one after the other.
    """
    hits = jax.nn.one_hot(media, num_media, dtype=jnp.int32)
    rank = (jnp.cumsum(hits, axis=1) * hits).sum(-1) - 1
    blocks = -(-hits.sum(1) // size)  # of each media item
    ends = jnp.cumsum(blocks, axis=1)
    place = (hits * (ends - blocks)[:, None]).sum(-1) * size + rank
    over = (ends[:, None] <= jnp.arange(num_blocks)[:, None]).sum(-1)
    return place, jnp.minimum(over, num_media - 1)


def _pick(x: Array, index: Array) -> Array:
    """Row b of x [B, S, ...] at the places of row b of index [B, L]."""
    return jax.vmap(lambda row, at: row[at])(x, index)
