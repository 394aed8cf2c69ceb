"""Retrieval: the share of queries whose right answer is among the K nearest (paper, Table 9)."""

import numpy as np


def recall(
    scores: np.ndarray,  # float[Q, N], of each query with each answer
    query_ids: np.ndarray,  # int[Q]
    answer_ids: np.ndarray,  # int[N], equal to a query's where the answer is right
    k: int,
) -> float:
    """In [0, 1]. A wrong answer of the same score counts as nearer than the right one."""
    right = query_ids[:, None] == answer_ids[None]
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    ahead = (~right & (scores >= best)).sum(1)
    return float((ahead < k).mean())
