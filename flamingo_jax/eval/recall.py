"""Retrieval: the share of queries whose right answer is among the K nearest (paper, Table 9)."""

import numpy as np

AT = (1, 5, 10)  # K of the paper's tables
TEXT, PICTURE = "text_recall", "picture_recall"  # of pictures' own texts, of texts' own pictures

_CHUNK = 1 << 24  # scores compared at a time


def in_nearest(
    scores: np.ndarray,  # float[Q, N], of each query with each answer
    query_ids: np.ndarray,  # int[Q]
    answer_ids: np.ndarray,  # int[N], equal to a query's where the answer is right
    k: int,
) -> np.ndarray:  # bool[Q]
    """Where any right answer is. A wrong one of the same score counts as nearer."""
    found = np.empty(len(scores), bool)
    rows = max(1, _CHUNK // max(1, scores.shape[1]))
    for start in range(0, len(scores), rows):
        some = slice(start, start + rows)
        right = query_ids[some, None] == answer_ids[None]
        best = np.where(right, scores[some], -np.inf).max(1, keepdims=True)
        found[some] = (~right & (scores[some] >= best)).sum(1) < k
    return found


def recall(scores: np.ndarray, query_ids: np.ndarray, answer_ids: np.ndarray, k: int) -> float:
    """The share of them, in [0, 1]."""
    return float(in_nearest(scores, query_ids, answer_ids, k).mean())
