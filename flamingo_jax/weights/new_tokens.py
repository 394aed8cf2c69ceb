"""First values of the new tokens' embedding rows.

The paper draws `<EOC>` at random. A frozen table has a large common component (in SmolLM2's, the
mean row has two thirds of a row's length), and a row without it gets a logit so low that a short
run spends its first tens of steps on nothing else. So rows are drawn like the table's own: normal,
with its mean and standard deviation in each channel.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from flamingo_jax.core import partition

Tree = dict[str, Any]


def drawn_like(
    rows: np.ndarray | jax.Array,  # float[V, D], the frozen table
    count: int,
    seed: int,
) -> np.ndarray:  # f32[count, D]
    """`count` rows from a normal with the mean and the standard deviation of each channel."""
    mean, std = _moments(rows)
    noise = np.random.default_rng(seed).standard_normal((count, rows.shape[1]), np.float32)
    return mean + noise * std


def _moments(rows: np.ndarray | jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel; of a table on a mesh where it lies."""
    if not isinstance(rows, jax.Array) or not isinstance(rows.sharding, NamedSharding):
        rows = np.asarray(rows, np.float32)
        return rows.mean(0), rows.std(0)
    everywhere = partition.replicated(rows.sharding.mesh)
    moments = jax.jit(lambda x: (x.mean(0), x.std(0)), out_shardings=everywhere)(rows)
    return tuple(map(np.asarray, moments))


def initialise(new_tokens: Tree, language_model: Tree, seed: int) -> Tree:
    """The subtree `new_tokens` with rows drawn like those of the frozen subtree beside it."""
    tables = {"embedding": language_model["embedding"], "head": language_model.get("head")}
    return {
        name: drawn_like(tables[name], len(rows), seed) for name, rows in sorted(new_tokens.items())
    }
