"""Several pairs in one row, each as if it had the row for itself.

Captions are short: ALIGN's have 12 tokens on average, of the 32 that a row holds, and the rest is
padding that is computed all the same. The paper pads. Here consecutive pairs may share a row: they
are numbered in `segments`, attention stays inside a segment, positions count from its beginning,
and each sees its own media only, so the loss of every token is the one it has in a row of its own.

Pairs that are too long together lose their ends, the longest ones first, as a single one would.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.streams.sequences import TrainingSequence

MIN_TOKENS = 4  # of a pair: <BOS>, <image>, a token of text, <EOC>


@dataclasses.dataclass(frozen=True)
class PackedRow:
    """One row of a batch but for its media: slot s of them belongs to pair s."""

    tokens: np.ndarray  # i32[T]
    token_mask: np.ndarray  # bool[T]
    loss_mask: np.ndarray  # bool[T]
    media_index: np.ndarray  # i32[T], from 1; 0 is none
    segments: np.ndarray  # i32[T], the pair of each token, from 1; 0 is padding


def pack(
    pairs: Sequence[TrainingSequence | None],  # None: a record that could not be used
    num_tokens: int,
    pad_id: int,
) -> PackedRow:
    """The pairs one after the other; an unusable one takes no tokens, and its slot stays empty."""
    lengths = fit([0 if p is None else int(p.token_mask.sum()) for p in pairs], num_tokens)
    row = PackedRow(
        tokens=np.full(num_tokens, pad_id, np.int32),
        token_mask=np.zeros(num_tokens, bool),
        loss_mask=np.zeros(num_tokens, bool),
        media_index=np.zeros(num_tokens, np.int32),
        segments=np.zeros(num_tokens, np.int32),
    )
    start = 0
    for number, (pair, length) in enumerate(zip(pairs, lengths, strict=True), start=1):
        if pair is None:
            continue
        there = slice(start, start + length)
        row.tokens[there] = pair.tokens[:length]
        row.token_mask[there] = True
        row.loss_mask[there] = pair.loss_mask[:length]
        row.media_index[there] = np.where(pair.media_index[:length] > 0, number, 0)
        row.segments[there] = number
        start += length
    return row


def fit(lengths: Sequence[int], room: int) -> list[int]:
    """Lengths that sum to at most `room`: all cut to one limit, what is left over to the first.

    >>> fit([3, 9, 20], 16)
    [3, 7, 6]
    """
    fitted, left = [0] * len(lengths), room
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], -i))
    for done, i in enumerate(order):  # the shortest first; each may take its share of what is left
        fitted[i] = min(lengths[i], left // (len(order) - done))
        left -= fitted[i]
    return fitted
