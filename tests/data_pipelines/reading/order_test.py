"""The shuffled order is a permutation, differs by key, and has no structure that a test can see."""

import numpy as np
import pytest

from data_pipelines.reading.order import shuffled


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 255, 1000, 4097])
def test_every_index_once(size):
    assert sorted(shuffled(i, size, "a") for i in range(size)) == list(range(size))


def test_keys_give_different_orders_and_the_same_key_the_same():
    first, again, other = ([shuffled(i, 500, key) for i in range(500)] for key in "aab")
    assert first == again
    assert sum(a == b for a, b in zip(first, other, strict=True)) < 10


def test_six_orders_of_three_are_about_equally_frequent():
    counts = {}
    for key in range(6000):
        order = tuple(shuffled(i, 3, str(key)) for i in range(3))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert max(abs(count - 1000) for count in counts.values()) < 150


def test_neighbours_are_scattered():
    order = np.array([shuffled(i, 10_000, "seed") for i in range(10_000)])
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05
    assert abs(np.abs(np.diff(order)).mean() - 10_000 / 3) < 150
