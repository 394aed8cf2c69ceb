"""Which prompts go to the device together: few shapes to compile, and bounded memory.

Prompts of one shape share a call, padded to one length; a call's rows are filled up to a power of
two with its first row. Where a call is cut among devices, each of its parts is so.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

Shape = tuple[int, ...]

MAX_PROMPTS = 256  # whose media are decoded and held at once
# Of a device's part of a call:
MAX_ROWS = 32  # more prompts take several calls
MAX_CACHE_BYTES = 2 << 30  # keys and values of all rows and beams of a call that writes
MAX_MEDIA_BYTES = 4 << 30  # features of all frames of a call, of which videos have many
MAX_SCORED_TOKENS = 1024  # of a call that scores; its logits are made 128 tokens at a time


def windows(prompts: Iterable[Any]) -> Iterator[list[Any]]:
    """The prompts, as many at a time as are held with their media."""
    prompts = iter(prompts)
    while window := list(itertools.islice(prompts, MAX_PROMPTS)):
        yield window


def calls(
    shapes: Sequence[Shape], max_rows: Callable[[Shape], int]
) -> Iterator[tuple[Shape, list[int]]]:
    """A shape and the numbers of rows that have it, `max_rows` of the shape at most, for each call.

    Calls of one shape are of about one size.
    """
    order = sorted(range(len(shapes)), key=lambda i: shapes[i])
    for shape, group in itertools.groupby(order, key=lambda i: shapes[i]):
        numbers = list(group)
        num_calls = -(-len(numbers) // max_rows(shape))
        size = -(-len(numbers) // num_calls)
        for start in range(0, len(numbers), size):
            yield shape, numbers[start : start + size]


def rows_within(budget: int, each: int, shards: int = 1) -> int:
    """How many rows of a call have room, on each of `shards` a power of two; one has always."""
    return shards * min(MAX_ROWS, 1 << (max(1, budget // each).bit_length() - 1))


def filled(rows: Sequence[Any], shards: int = 1) -> list[Any]:
    """The rows, and the first one again up to a power of two on each of `shards`."""
    size = shards << (-(-len(rows) // shards) - 1).bit_length()
    return [*rows, *[rows[0]] * (size - len(rows))]
