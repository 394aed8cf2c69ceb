"""First values of the new tokens' embedding rows.

The paper draws `<EOC>` at random. A frozen table has a large common component (in SmolLM2's, the
mean row has two thirds of a row's length), and a row without it gets a logit so low that a short
run spends its first tens of steps on nothing else. So rows are drawn like the table's own: normal,
with its mean and standard deviation in each channel.
"""

from typing import Any

import numpy as np

Tree = dict[str, Any]


def drawn_like(
    rows: np.ndarray,  # float[V, D], the frozen table
    count: int,
    seed: int,
) -> np.ndarray:  # f32[count, D]
    """`count` rows from a normal with the mean and the standard deviation of each channel."""
    rows = np.asarray(rows, np.float32)
    noise = np.random.default_rng(seed).standard_normal((count, rows.shape[1]), np.float32)
    return rows.mean(0) + noise * rows.std(0)


def initialise(new_tokens: Tree, language_model: Tree, seed: int) -> Tree:
    """The subtree `new_tokens` with rows drawn like those of the frozen subtree beside it."""
    tables = {"embedding": language_model["embedding"], "head": language_model.get("head")}
    return {
        name: drawn_like(tables[name], len(rows), seed) for name, rows in sorted(new_tokens.items())
    }
