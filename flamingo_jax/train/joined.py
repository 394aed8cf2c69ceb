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
from flamingo_jax.train.flamingo_loss import flamingo_loss
from flamingo_jax.train.losses import next_token_targets

Array = jax.Array


class Joined(NamedTuple):
    """The rows of all datasets."""

    batch: Batch  # of text that has `segments`; media are visual tokens
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
    visual = visual_tokens(model, batches)
    joined = join({n: b._replace(media=visual[n]) for n, b in batches.items()}, counts)
    hidden = model.hidden(joined.batch)
    weight = jnp.array([weights[name] for name in batches], jnp.float32)
    total, each = flamingo_loss(
        model, hidden, joined.targets, joined.shares * weight[joined.dataset]
    )
    parts = joined.shares * jax.lax.stop_gradient(each)
    return total, {
        name: jnp.where(joined.dataset == i, parts, 0).sum() for i, name in enumerate(batches)
    }


def visual_tokens(model: Flamingo, batches: Mapping[str, Batch]) -> dict[str, Array]:
    """[B, M, R, D] of each batch's features; those of as many frames in one pass."""
    shards, found = batch_shards(), {}
    for frames in sorted({b.media.shape[2] for b in batches.values()}):
        these = {n: b for n, b in batches.items() if b.media.shape[2] == frames}

        def items(x: Array) -> Array:  # [B, M, ...] to [shards, B / shards * M, 1, ...]
            return x.reshape(shards, -1, 1, *x.shape[2:])

        media, mask = (
            _merged([items(getattr(b, field)) for b in these.values()])
            for field in ("media", "media_mask")
        )
        tokens = model.visual_tokens(media, mask)
        tokens = tokens.reshape(shards, -1, *tokens.shape[2:])
        start = 0
        for name, b in these.items():
            num = len(b.media) // shards * b.media.shape[1]
            part = tokens[:, start : start + num]
            found[name] = part.reshape(*b.media.shape[:2], *tokens.shape[2:])
            start += num
    return found


def join(batches: Mapping[str, Batch], counts: Mapping[str, Array]) -> Joined:
    """Rows of batches whose media are visual tokens; `counts` are targets, f32[], of whole ones."""
    longest = max(b.tokens.shape[1] for b in batches.values())
    beside = {name: longest // b.tokens.shape[1] for name, b in batches.items()}
    most = max(beside[name] * b.media.shape[1] for name, b in batches.items())

    def placed(number: int, name: str, b: Batch) -> Joined:
        num, places = beside[name], b.media.shape[1]
        targets, weights = next_token_targets(b.tokens, b.loss_mask)
        texts = b.token_mask.astype(jnp.int32) if b.segments is None else b.segments
        own = Joined(
            b._replace(
                media_index=_numbered_on(b.media_index, places, num),
                media=None,
                media_mask=None,
                segments=_numbered_on(texts, 1 if b.segments is None else places, num),
            ),
            targets,
            shares=weights / jnp.maximum(counts[name], 1.0),
            dataset=jnp.full_like(b.tokens, number),
        )
        rows = jax.tree.map(lambda x: _rows(x, num, longest), own)
        shown = b.media_mask.any(-1, keepdims=True)
        media = {"media": _rows(b.media, num, most), "media_mask": _rows(shown, num, most)}
        return rows._replace(batch=rows.batch._replace(**media))

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
