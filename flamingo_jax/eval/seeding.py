"""Random draws that depend on the seed and the query's id only.

Scoring fewer queries, or in another order, or on several hosts, then draws the same shots and
candidates for each query.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


Identified = TypeVar("Identified", bound=_HasId)


def query_generator(seed: int, query_id: str) -> np.random.Generator:
    """A generator for one query; the same on every machine (Python's own `hash` is not)."""
    digest = hashlib.sha256(query_id.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def first_queries(queries: Sequence[Identified], count: int | None) -> list[Identified]:
    """`count` queries, all if None, in their order; a smaller number is a part of a larger one."""
    if count is None or count >= len(queries):
        return list(queries)
    digests = [hashlib.sha256(query.id.encode()).digest() for query in queries]
    kept = sorted(range(len(queries)), key=lambda i: digests[i])[:count]
    return [queries[i] for i in sorted(kept)]
