"""All datasets of an update side by side: one batch, and one pass of the language model over it.

Paper, section 2.4: each dataset's gradient, weighted, and their sum. Visited one after the other,
four datasets read all weights four times, and four times bring trained ones and gradients together
over the network. Here short rows stand beside one another in a row as long as the longest, apart
from each other as packed pairs are, and the loss of a token counts by its own dataset:

    m3w    a a a a a a a a
    align  b b b b c c c c        two rows of a dataset in one
    vtp    d d d d . . . .        nothing, where a device's rows do not come out even

The sum is the same, to rounding. No row leaves its device.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flamingo_jax.batch import Batch
from flamingo_jax.config import FlamingoConfig
from flamingo_jax.core.partition import batch_shards, constrain
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.models.gated_xattn import MediaItems
from flamingo_jax.models.media_mask import text_media_mask
from flamingo_jax.train.flamingo_loss import flamingo_loss
from flamingo_jax.train.losses import next_token_targets

Array = jax.Array


class Joined(NamedTuple):
    """The rows of all datasets."""

    tokens: Array  # i32[B, T]
    token_mask: Array  # bool[B, T]
    segments: Array  # i32[B, T], texts that do not see each other, from 1; 0 is padding
    media_index: Array  # i32[B, T], phi
    media_mask: Array  # bool[B, M]
    items: Array  # i32[B, M], of `MediaItems`
    targets: Array  # i32[B, T], the token after each
    shares: Array  # f32[B, T], of the mean of its dataset: 1 / targets there, 0 where none is
    dataset: Array  # i32[B, T], whose token it is, by place in the order of the batches


def check(config: FlamingoConfig, num_media: Mapping[str, int]) -> None:
    """ValueError for a model or datasets that must be visited one by one.

    `num_media` are the places for media in a row of each dataset.
    """
    if (attend := config.cross_attention.attend) != "last":
        raise ValueError(
            f"join_datasets=True with cross_attention.attend={attend!r}: set it to False, for "
            "text in a row that several share sees one media item"
        )
    if without := [name for name, places in num_media.items() if not places]:
        raise ValueError(
            f"join_datasets=True with data.train.{without[0]}, which has no media: set it to "
            "False, or leave out the dataset"
        )


def losses(
    model: Flamingo,
    batches: Mapping[str, Batch],  # media are features
    weights: Mapping[str, float],
    counts: Mapping[str, Array],  # f32[], targets of each dataset's whole batch
) -> tuple[Array, dict[str, Array]]:
    """Weighted sum of the datasets' mean losses, nats a token; each of them, without gradient."""
    visual, first = visual_tokens(model, batches)
    joined = join(batches, first, counts)
    context = model.language_model.context(joined.token_mask, segments=joined.segments)
    mask = text_media_mask(joined.media_index, joined.media_mask)
    media = MediaItems(visual, joined.items)
    hidden, _ = model.decode(joined.tokens, context, media, mask)
    weight = jnp.array([weights[name] for name in batches], jnp.float32)
    total, each = flamingo_loss(
        model, hidden, joined.targets, joined.shares * weight[joined.dataset]
    )
    parts = joined.shares * jax.lax.stop_gradient(each)
    return total, {
        name: jnp.where(joined.dataset == i, parts, 0).sum() for i, name in enumerate(batches)
    }


def visual_tokens(model: Flamingo, batches: Mapping[str, Batch]) -> tuple[Array, dict[str, int]]:
    """[I, R, D] of all media, those of as many frames in one pass; where each batch's begin.

    A device has its own media of all batches together, and they begin at the same place on each.
    """
    shards, found, first, start = batch_shards(), [], {}, 0
    for frames in sorted({b.media.shape[2] for b in batches.values()}):
        these = {n: b for n, b in batches.items() if b.media.shape[2] == frames}

        def items(field: str, these=these) -> Array:  # [I, 1, ...]
            parts = (getattr(b, field) for b in these.values())
            return _merged([x.reshape(shards, -1, 1, *x.shape[2:]) for x in parts])

        tokens = model.visual_tokens(items("media"), items("media_mask"))
        found.append(tokens.reshape(shards, -1, *tokens.shape[2:]))
        for name, b in these.items():
            first[name] = start
            start += len(b.media) // shards * b.media.shape[1]
    return _merged(found), first


def join(
    batches: Mapping[str, Batch],
    first: Mapping[str, int],  # where the media of each begin among a device's
    counts: Mapping[str, Array],  # f32[], targets of each whole batch
) -> Joined:
    """Rows of all batches."""
    longest = max(b.tokens.shape[1] for b in batches.values())
    beside = {name: longest // b.tokens.shape[1] for name, b in batches.items()}
    most = max(beside[name] * b.media.shape[1] for name, b in batches.items())

    def placed(number: int, name: str, b: Batch) -> Joined:
        num, (rows, places) = beside[name], b.media.shape[:2]
        targets, weights = next_token_targets(b.tokens, b.loss_mask)
        texts = b.token_mask.astype(jnp.int32) if b.segments is None else b.segments
        items = jnp.arange(rows * places) % (rows * places // batch_shards())
        own = Joined(
            tokens=b.tokens,
            token_mask=b.token_mask,
            segments=_numbered_on(texts, 1 if b.segments is None else places, num),
            media_index=_numbered_on(b.media_index, places, num),
            media_mask=b.media_mask.any(-1),
            items=first[name] + items.reshape(rows, places),
            targets=targets,
            shares=weights / jnp.maximum(counts[name], 1.0),
            dataset=jnp.full_like(b.tokens, number),
        )
        wide = {"media_mask": most, "items": most}
        return Joined(*(_rows(x, num, wide.get(f, longest)) for f, x in own._asdict().items()))

    each = [placed(i, *item) for i, item in enumerate(batches.items())]
    return jax.tree.map(lambda *parts: _merged(parts), *each)


def _numbered_on(x: Array, most: int, beside: int) -> Array:
    """Numbers i32[B, T] from 1 to `most`, 0 for none, as they are where rows stand `beside`."""
    place = jnp.arange(len(x)) % (len(x) // batch_shards()) % beside
    return jnp.where(x > 0, x + most * place[:, None], 0)


def _rows(x: Array, beside: int, width: int) -> Array:
    """[B, T, ...] to [shards, rows, width, ...], of a shard's rows so many beside one another."""
    x = x.reshape(batch_shards(), -1, *x.shape[1:])
    x = _padded(x, 1, -x.shape[1] % beside)
    x = x.reshape(len(x), -1, beside * x.shape[2], *x.shape[3:])
    return _padded(x, 2, width - x.shape[2])


def _padded(x: Array, axis: int, num: int) -> Array:
    return jnp.pad(x, [(0, num if i == axis else 0) for i in range(x.ndim)])


def _merged(parts: Sequence[Array]) -> Array:
    """Parts [shards, n, ...] to [shards x all n, ...], each shard's rows together."""
    x = jnp.concatenate(parts, axis=1)
    x = x.reshape(-1, *x.shape[2:])
    return constrain(x, "batch", *[None] * (x.ndim - 1))
