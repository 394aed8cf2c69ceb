"""Wilson's score interval for a share of queries, such as those whose right name came first.

Holds for few queries and for shares near 0 and 1, where a bootstrap interval has no width: 0 of 8
is 0% to 32% (Wilson 1927).
"""

import math
import statistics
from collections.abc import Sequence

import numpy as np

from flamingo_jax.eval.bootstrap import Interval


def wilson_share(
    hits: Sequence[float] | np.ndarray,  # [queries], each 0 or 1
    *,
    level: float = 0.95,
) -> Interval:
    """The share of hits and its interval; ValueError on no query or a value between 0 and 1."""
    values = np.asarray(hits, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"hits have shape {list(values.shape)}: give a 0 or 1 for each query")
    if not np.isin(values, (0, 1)).all():
        first = int(np.flatnonzero(~np.isin(values, (0, 1)))[0])
        raise ValueError(f"hits[{first}]={values[first]}: a query is hit (1) or missed (0)")
    if not 0 < level < 1:
        raise ValueError(f"level={level}: use a number between 0 and 1, such as 0.95")
    n, share = values.size, float(values.mean())
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # Where all miss or all hit, one end is the share itself, which rounding must not pass.
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Interval(share, min(share, low), max(share, high), n)
