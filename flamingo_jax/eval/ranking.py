"""Close-ended scoring: rank candidate texts by log-likelihood and see where the right one stands.

Paper: section 3.1 ("close-ended tasks") and appendix on classification. Ties count against the
model, so one that gives every candidate the same likelihood scores 0 and not 100%.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from flamingo_jax.eval.seeding import query_generator


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Where the right candidate of each query came, from 1."""

    ranks: np.ndarray  # i64[queries]

    @property
    def first(self) -> np.ndarray:
        """1.0 where the right candidate came first alone, else 0.0; f64[queries]."""
        return (self.ranks == 1).astype(np.float64)

    @property
    def reciprocal(self) -> np.ndarray:
        """1 / rank, f64[queries]; its mean is the mean reciprocal rank."""
        return 1.0 / self.ranks


def candidate_sets(
    query_ids: Sequence[str],
    right_names: Sequence[str],
    names: Sequence[str],
    num_candidates: int,
    *,
    seed: int,
    also_right: Sequence[Sequence[str]] | None = None,
) -> list[tuple[str, ...]]:
    """For each query its right name, first, and `num_candidates - 1` different wrong ones.

    Wrong names are drawn from `names` without regard to repeats there. Names that differ only in
    case or outer spaces are the same name. `also_right` lists further true names of each query,
    which are never drawn as wrong. ValueError where too few wrong names are left.
    """
    if len(query_ids) != len(right_names):
        raise ValueError(f"{len(query_ids)} query ids for {len(right_names)} right names")
    if num_candidates < 2:
        raise ValueError(f"num_candidates={num_candidates}: use 2 or more")
    sets = []
    wrong_names = _wrong_names(right_names, names, also_right)
    for query_id, right, wrong in zip(query_ids, right_names, wrong_names, strict=True):
        if len(wrong) < num_candidates - 1:
            raise ValueError(
                f"query {query_id!r}: {len(wrong)} wrong names for num_candidates="
                f"{num_candidates}; give more names or ask for {len(wrong) + 1} at most"
            )
        drawn = query_generator(seed, query_id).choice(
            len(wrong), num_candidates - 1, replace=False
        )
        sets.append((right, *(wrong[i] for i in drawn)))
    return sets


def most_candidates(
    right_names: Sequence[str],
    names: Sequence[str],
    *,
    also_right: Sequence[Sequence[str]] | None = None,
) -> int:
    """The largest `num_candidates` for which `candidate_sets` has enough names for every query."""
    return 1 + min(map(len, _wrong_names(right_names, names, also_right)), default=0)


def _wrong_names(
    right_names: Sequence[str],
    names: Sequence[str],
    also_right: Sequence[Sequence[str]] | None,
) -> Iterator[list[str]]:
    """For each query the different names that are none of its own."""
    distinct: dict[str, str] = {}
    for name in names:
        distinct.setdefault(_same(name), name)
    for row, right in enumerate(right_names):
        true = {_same(right), *(_same(n) for n in (also_right[row] if also_right else ()))}
        yield [name for key, name in distinct.items() if key not in true]


def rank(log_probs: np.ndarray) -> Ranking:
    """Ranks column 0, the right candidate, in each row of float[queries, candidates].

    A wrong candidate that ties with the right one stands before it. ValueError on a NaN.
    """
    if log_probs.ndim != 2 or log_probs.shape[1] < 2:
        raise ValueError(
            f"log_probs is {list(log_probs.shape)}, want [queries, candidates] with the right "
            "candidate in column 0"
        )
    if np.isnan(log_probs).any():
        row, column = np.argwhere(np.isnan(log_probs))[0]
        raise ValueError(f"log_probs[{row}, {column}] is NaN: score that candidate again")
    return Ranking(1 + (log_probs[:, 1:] >= log_probs[:, :1]).sum(axis=1))


def _same(name: str) -> str:
    return " ".join(name.casefold().split())
