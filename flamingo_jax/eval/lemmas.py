"""A sentence's words in their dictionary forms, as NExT-QA's scorer has them from pywsd 1.2.4.

Each word is tagged with its part of speech in the sentence, and WordNet is asked for its dictionary
form as of that part. Of a word that WordNet does not know the stem is taken, where it knows that,
and else the word. Tokens, tags and stems are NLTK's, whose code for them has not changed.

Two things are other than there, because NLTK's data for them are in no package. The tagger's
weights are those that NLTK's first had: of the words of NExT-QA's answers 3 in 100 get another
form, and the predictions that its authors publish score 0.1 less on test and 0.2 on val. And every
full stop before a space ends a sentence, where NLTK knows some abbreviations.
"""

import functools
import re

from flamingo_jax.eval.wordnet import WordNet
from flamingo_jax.weights import perceptron_tagger

_PARTS = {"NN": "n", "JJ": "a", "VB": "v", "RB": "r"}  # how tags of the Penn Treebank begin
_SENTENCE_END = re.compile(r"(?<=\.)\s+")


class Lemmatizer:
    """Of English; ModuleNotFoundError where NLTK is not installed."""

    def __init__(self, wordnet: WordNet, weights: perceptron_tagger.Weights):
        # An optional dependency, of this score alone.
        from nltk.stem import PorterStemmer
        from nltk.tag import PerceptronTagger
        from nltk.tokenize import NLTKWordTokenizer

        self._wordnet = wordnet
        self._stem = PorterStemmer().stem
        self._split = NLTKWordTokenizer().tokenize
        self._tagger = PerceptronTagger(load=False)
        self._tagger.model.weights = dict(weights.features)
        self._tagger.tagdict = dict(weights.words)
        self._tagger.classes = self._tagger.model.classes = set(weights.tags)

    def tokens(self, text: str) -> list[str]:
        """Words and signs."""
        return [token for part in _SENTENCE_END.split(text) for token in self._split(part)]

    def lemmas(self, text: str) -> list[str]:
        """The dictionary form of each token, in lower case."""
        tagged = self._tagger.tag(self.tokens(text))
        return [self._lemma(word.lower(), _PARTS.get(tag[:2])) for word, tag in tagged]

    @functools.lru_cache(1 << 16)  # noqa: B019 (one lives as long as the process)
    def _lemma(self, word: str, part: str | None) -> str:
        if part is None:  # such as of "inside": what it is by itself
            ((_, tag),) = self._tagger.tag([word])
            part = _PARTS.get(tag[:2], "n")
        lemma = min(self._wordnet.bases(word, part), key=len, default=word)
        if self._wordnet.first(lemma) is not None:
            return lemma
        stem = self._stem(word)
        return word if self._wordnet.first(stem) is None else stem
