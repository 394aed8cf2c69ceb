"""Batches of a stream, taken and compared."""

from collections.abc import Iterator, Sequence

import numpy as np

from flamingo_jax.batch import Batch


def take(batches: Iterator[Batch], count: int) -> list[Batch]:
    """The next `count`."""
    return [next(batches) for _ in range(count)]


def assert_same(a: Sequence[Batch], b: Sequence[Batch]) -> None:
    """As many, and all of their arrays equal."""
    for x, y in zip(a, b, strict=True):
        for name, left, right in zip(x._fields, x, y, strict=True):
            np.testing.assert_array_equal(left, right, err_msg=name)
