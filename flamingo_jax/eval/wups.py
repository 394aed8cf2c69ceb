"""WUPS: how near the words of a written answer are to those of the right one.

Malinowski and Fritz 2014, as NExT-QA's scorer has it. Each word of one text has the similarity of
the word of the other that is nearest to it. Words that are near none are skipped, and the rest are
multiplied, so that a longer answer scores less; of the two directions the lower one counts. This is
threshold 0, which papers print; at 0.9 a similarity below it would count a tenth.
"""

import math
from collections.abc import Callable, Sequence

Similarity = Callable[[str, str], float]  # of two words, in [0, 1]; need not be symmetric


def wups(written: Sequence[str], right: Sequence[str], similarity: Similarity) -> float:
    """The score in [0, 1] of an answer's words; 0 where none is near any of the right one's."""
    return min(_one_way(written, right, similarity), _one_way(right, written, similarity))


def _one_way(words: Sequence[str], others: Sequence[str], similarity: Similarity) -> float:
    nearest = [max((similarity(word, other) for other in others), default=0.0) for word in words]
    near = [value for value in nearest if value > 0]
    return math.prod(near) if near else 0.0
