"""iVQA accuracy: an answer that two of five people gave is right, one that a single one gave half.

Paper: section 3, iVQA. The rule is that of the data set's authors as FrozenBiLM reads it; texts are
normalised as for `exact_match`, which is not stated.
"""

from collections.abc import Sequence

from flamingo_jax.eval.exact_match import normalize

VERSION = "ivqa_accuracy 1"


def ivqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The score in {0, 0.5, 1}."""
    found = normalize(prediction)
    return min(sum(normalize(answer) == found for answer in answers) / 2, 1.0)
