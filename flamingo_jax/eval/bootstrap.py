"""Bootstrap intervals: how far a score might be off, given that few queries were asked.

The paper prints scores without intervals; with the demo's few hundred queries they matter. Queries
are drawn again with replacement and the percentiles of the resampled mean are the interval. What
depends on the whole set, such as CIDEr's idf, is held fixed; the seed of training is not covered.
Shares of queries have `wilson.py`: what is drawn again from nothing but misses has no width.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

NUM_RESAMPLES = 10_000
_CHUNK = 1_000_000  # drawn indices at a time, 8 MB


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over queries, with an interval around it: a bootstrap one, or Wilson's for a share."""

    mean: float
    low: float
    high: float
    num_queries: int


def bootstrap_mean(
    scores: Sequence[float] | np.ndarray,  # [queries]
    *,
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean of `scores` and its interval; ValueError on no scores or one that is not finite."""
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"scores have shape {list(values.shape)}: give one number a query")
    if not np.isfinite(values).all():
        first = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"scores[{first}]={values[first]}: every score must be finite")
    if not 0 < level < 1:
        raise ValueError(f"level={level}: use a number between 0 and 1, such as 0.95")
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // values.size)
    means = np.concatenate(
        [
            values[generator.integers(0, values.size, (n, values.size))].mean(axis=1)
            for n in _chunks(num_resamples, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), values.size)


def paired_bootstrap(
    scores: Sequence[float] | np.ndarray,  # [queries]
    baseline: Sequence[float] | np.ndarray,  # [queries], of the same queries in the same order
    *,
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean of `scores - baseline` and its interval; above 0 all along is a real gain.

    Both are scores of the same queries, so what makes a query hard cancels, and the interval is
    narrower than two separate ones suggest.
    """
    a, b = np.asarray(scores, np.float64), np.asarray(baseline, np.float64)
    if a.shape != b.shape:
        raise ValueError(
            f"{list(a.shape)} scores against {list(b.shape)}: both must be of the same queries"
        )
    return bootstrap_mean(a - b, level=level, num_resamples=num_resamples, seed=seed)


def bootstrap_statistic(
    statistic: Callable[[np.ndarray], float],  # of rows i64[queries], some of them several times
    num_queries: int,
    *,
    level: float = 0.95,
    num_resamples: int = 1_000,
    seed: int = 0,
) -> Interval:
    """What `statistic` is of all queries, and its interval, where it is no mean over them.

    A resample for which it raises ValueError, as ROC AUC without a positive, is left out; the
    interval has no width where all are.
    """
    generator = np.random.default_rng(seed)
    value, found = float(statistic(np.arange(num_queries))), []
    for _ in range(num_resamples):
        with contextlib.suppress(ValueError):
            found.append(statistic(generator.integers(0, num_queries, num_queries)))
    low, high = np.quantile(found or [value], [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), num_queries)


def _chunks(total: int, size: int) -> list[int]:
    if total < 1:
        raise ValueError(f"num_resamples={total}: use 1 or more, 10000 is usual")
    return [min(size, total - start) for start in range(0, total, size)]
