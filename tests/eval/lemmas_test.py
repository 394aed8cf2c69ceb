"""Dictionary forms of a tiny dictionary's words, by a tagger that knows a few words' parts."""

import pytest

from flamingo_jax.eval.lemmas import Lemmatizer
from flamingo_jax.weights.perceptron_tagger import Weights
from tests.eval import tiny_wordnet

pytest.importorskip("nltk", reason="nltk is not installed")
WORDS = {"freer": "JJR", "slowly": "RB", "the": "DT", "into": "IN"}
# Of any other word its ending decides, or the word before it.
FEATURES = {
    "bias": {"NN": 1.0},
    "i suffix ing": {"VBG": 2.0},
    "i-1 word sleep": {"VB": 3.0},
}
LEMMATIZER = Lemmatizer(
    tiny_wordnet.tiny(), Weights(FEATURES, WORDS, {"NN", "VB", "VBG", *WORDS.values()})
)


@pytest.mark.parametrize(
    ("text", "lemmas"),
    [
        ("The dogs", ["the", "dog"]),
        ("Oxen walking slowly", ["ox", "walk", "slowly"]),
        ("freer", ["free"]),
        ("sleep moves", ["sleep", "move"]),  # a verb behind "sleep"
        ("moves", ["moves"]),  # of no noun, but WordNet knows it: as pywsd leaves it
        ("dogged", ["dog"]),  # not known, and its stem is
        ("zzzs", ["zzzs"]),  # nor its stem
        ("into", ["into"]),
        ("", []),
        ("dog's", ["dog", "'s"]),
        ("cats. Oxen.", ["cat", ".", "ox", "."]),
    ],
)
def test_words_as_they_stand_in_a_dictionary(text, lemmas):
    assert LEMMATIZER.lemmas(text) == lemmas


def test_sentences_end_at_full_stops():
    assert " ".join(LEMMATIZER.tokens("A cat sat. It slept.")) == "A cat sat . It slept ."
