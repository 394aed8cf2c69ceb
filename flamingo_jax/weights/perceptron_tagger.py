"""The weights of an averaged perceptron that tags parts of speech: a pickle of dicts of numbers.

The PyPI package `textblob-aptagger` has one, trained on the Wall Street Journal, from whose code
NLTK's tagger was made; it computes the same features. Needed by `eval/lemmas.py` alone.
"""

import pathlib
from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files.restricted_pickle import Dialect, Malformed, unpickle


class Weights(NamedTuple):
    """What was trained."""

    features: Mapping[str, Mapping[str, float]]  # a weight for each tag of each feature
    words: Mapping[str, str]  # those that have one tag nearly always
    tags: Set[str]


def load(path: pathlib.Path) -> Weights:
    """Reads a file; BadWeightsFile where it is missing, damaged, or anything else."""
    try:
        with path.open("rb") as file:
            found = unpickle(file, _DIALECT)
    except OSError as error:
        raise BadWeightsFile(f"{path}: cannot be read ({error.strerror or error})") from error
    except Malformed as error:
        raise BadWeightsFile(f"{path}: {error}") from error
    kinds = [type(value) for value in found] if isinstance(found, tuple) else type(found)
    if kinds != [dict, dict, frozenset]:
        raise BadWeightsFile(f"{path}: want two dicts and the tags of a tagger, got {kinds}")
    return Weights(*found)


def _tags(names: Iterable[str]) -> frozenset[str]:
    """In the place of `set`; of texts alone, for a tuple of tuples can take for ever to hash."""
    if not all(type(name) is str for name in names):
        raise TypeError("a tag that is no text")
    return frozenset(names)


_DIALECT = Dialect({"__builtin__ set": _tags}, what="numbers, strings and a set of them")
