"""Random draws that depend on the seed and the query's id only.

Scoring fewer queries, or in another order, or on several hosts, then draws the same shots and
candidates for each query.
"""

import hashlib

import numpy as np


def query_generator(seed: int, query_id: str) -> np.random.Generator:
    """A generator for one query; the same on every machine (Python's own `hash` is not)."""
    digest = hashlib.sha256(query_id.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
