"""Wilson's interval: published values, its ends, and how often it covers the truth."""

import numpy as np
import pytest

from flamingo_jax.eval.wilson import wilson_share


def hits(num_hits: int, num_queries: int) -> list[int]:
    return [1] * num_hits + [0] * (num_queries - num_hits)


@pytest.mark.parametrize(
    ("num_hits", "num_queries", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (0, 8, 0, 0.3244)],
)
def test_values_that_are_known(num_hits, num_queries, low, high):
    """The first three are of Newcombe 1998, table I."""
    found = wilson_share(hits(num_hits, num_queries))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert found.mean == num_hits / num_queries
    assert found.num_queries == num_queries


@pytest.mark.parametrize("num_queries", range(1, 60))
def test_ends_hold_the_share_and_mirror(num_queries):
    none, all_ = wilson_share(hits(0, num_queries)), wilson_share(hits(num_queries, num_queries))
    assert (none.low, none.mean) == (0, 0) < (none.high, 1)
    assert (all_.mean, all_.high) == (1, 1)
    assert all_.low == pytest.approx(1 - none.high)


def test_covers_a_small_share_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    found = [wilson_share(generator.random(40) < 0.05) for _ in range(500)]
    assert np.mean([f.low <= 0.05 <= f.high for f in found]) > 0.9


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="0 or 1 for each query"):
        wilson_share([])
    with pytest.raises(ValueError, match=r"hits\[1\]=0.5"):
        wilson_share([1, 0.5])
    with pytest.raises(ValueError, match="level=95"):
        wilson_share([1], level=95)
