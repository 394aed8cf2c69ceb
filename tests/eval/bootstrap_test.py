"""Bootstrap intervals: against the normal approximation, and how often they cover the truth."""

import numpy as np
import pytest

from flamingo_jax.eval.bootstrap import bootstrap_mean, paired_bootstrap


def test_width_is_that_of_the_standard_error():
    scores = np.random.default_rng(0).normal(3, 2, 400)
    interval = bootstrap_mean(scores)
    error = scores.std() / np.sqrt(400)
    assert interval.mean == pytest.approx(scores.mean())
    assert interval.low == pytest.approx(interval.mean - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(interval.mean + 1.96 * error, abs=0.1 * error)
    assert interval.num_queries == 400


def test_covers_the_true_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        interval = bootstrap_mean(generator.exponential(1.0, 80), level=0.8, num_resamples=400)
        hits += interval.low <= 1.0 <= interval.high
    assert 0.7 < hits / 200 < 0.88


def test_equal_scores_have_no_width():
    interval = bootstrap_mean([2.0] * 7)
    assert (interval.low, interval.mean, interval.high) == (2.0, 2.0, 2.0)


def test_seeded_and_independent_of_chunking(monkeypatch):
    scores = np.random.default_rng(2).random(50)
    whole = bootstrap_mean(scores, seed=3, num_resamples=1000)
    monkeypatch.setattr("flamingo_jax.eval.bootstrap._CHUNK", 170)
    assert bootstrap_mean(scores, seed=3, num_resamples=1000) == whole
    assert bootstrap_mean(scores, seed=4, num_resamples=1000) != whole


def test_pairing_sees_a_small_gain_under_large_differences_between_queries():
    generator = np.random.default_rng(4)
    hardness = generator.normal(0, 10, 100)
    better = hardness + 0.5 + generator.normal(0, 0.5, 100)
    gain = paired_bootstrap(better, hardness)
    assert 0 < gain.low < 0.5 < gain.high
    assert bootstrap_mean(better).low < bootstrap_mean(hardness).high  # apart, nothing is seen


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="one number a query"):
        bootstrap_mean([])
    with pytest.raises(ValueError, match=r"scores\[1\]=nan"):
        bootstrap_mean([1.0, float("nan")])
    with pytest.raises(ValueError, match="level=95"):
        bootstrap_mean([1.0], level=95)
    with pytest.raises(ValueError, match="same queries"):
        paired_bootstrap([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="num_resamples=0"):
        bootstrap_mean([1.0], num_resamples=0)
