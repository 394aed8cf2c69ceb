"""ROC AUC: how often a positive outranks a negative, ties counting half.

Paper: section 3, HatefulMemes. Only the order of the scores matters, so a difference of two
log-likelihoods does for a probability.
"""

import numpy as np

VERSION = "roc_auc 1"


def roc_auc(
    scores: np.ndarray,  # float[queries]
    positive: np.ndarray,  # bool[queries]
) -> float:
    """The area in [0, 1]; ValueError where all are positive, or none is."""
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        raise ValueError(
            f"{num_positive} positive and {num_negative} negative queries: ROC AUC wants both"
        )
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2  # from 1; equal scores share one
    ranks = mean_rank[place][positive].sum()
    least = num_positive * (num_positive + 1) / 2
    return float((ranks - least) / (num_positive * num_negative))
