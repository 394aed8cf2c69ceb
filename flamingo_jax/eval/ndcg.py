"""NDCG as VisDial computes it: over as many options as are relevant at all.

Paper: section 3, VisDial. Of an image's 100 options k have a relevance that is not 0. The gain of
the k options that the model ranks highest, each divided by log2 of its rank plus 1, is divided by
what the best order gains.
"""

import numpy as np

VERSION = "ndcg 1 (VisDial's rules)"


def ndcg(
    scores: np.ndarray,  # float[options]
    relevance: np.ndarray,  # float[options], as people rated them
) -> float:
    """In [0, 1], 0 where nothing is relevant; of equal scores the less relevant option is first."""
    k = int((relevance != 0).sum())
    if not k:
        return 0.0
    ranked = relevance[np.lexsort((relevance, -scores))][:k]
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = np.sort(relevance)[::-1][:k]
    return float((ranked * discount).sum() / (best * discount).sum())
