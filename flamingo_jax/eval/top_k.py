"""Whether a right answer is among the k likeliest candidates.

Paper: classification (ImageNet top-1, Kinetics700 the mean of top-1 and top-5) and multiple choice
(STAR). Ties count against the model, so one that finds all candidates equally likely scores 0.
"""

import numpy as np

VERSION = "top_k 1"


def in_top_k(log_probs: np.ndarray, right: int, k: int) -> float:
    """1.0 or 0.0; `log_probs` is float[candidates], of which number `right` is right."""
    others = np.delete(log_probs, right)
    return float((others >= log_probs[right]).sum() < k)
