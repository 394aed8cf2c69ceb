"""Exact match: whether the answer is one of the right ones, but for case, spaces and a last sign.

Paper: MSVDQA and MSRVTTQA, "top-1 accuracy" of written answers. Their answers are single words, so
of a longer prediction the first word counts (`first_word`). How the paper normalises is not stated.
"""

from collections.abc import Sequence

VERSION = "exact_match 1"
_LAST_SIGNS = ".,;:!?\"'"


def exact_match(prediction: str, answers: Sequence[str], *, first_word: bool = False) -> float:
    """1.0 where the prediction is one of `answers`, else 0.0."""
    found = normalize(prediction)
    if first_word:
        found = normalize(found.partition(" ")[0])
    return float(found in {normalize(answer) for answer in answers})


def normalize(text: str) -> str:
    """Case folded, single spaces, without signs at the end."""
    return " ".join(text.casefold().split()).rstrip(_LAST_SIGNS).rstrip()
