"""OK-VQA's stems, learnt from its annotations.

OK-VQA scores stemmed answers: `answer` is the stem of what a person typed, `raw_answer`. What made
them was not released (OpenFlamingo's rules, of WordNet, a tagger and exceptions by hand, were found
from these pairs), and a prediction needs the same stemming. Here it is looked up: whole answers,
then single words, as the annotations pair them. What nobody typed stays as it is, so a score can be
lower than the official one, and is never higher but where a word has several stems. Signs behind a
word stay, too, for VQA accuracy to judge.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

VERSION = "stems of the annotations 2"
_LAST_SIGNS = ".,;:!?"


def learn(pairs: Iterable[tuple[str, str]]) -> Callable[[str], str]:
    """The stemmer of (typed, stemmed) answers; of several stems the most frequent is taken."""
    whole: Mapping[str, Counter[str]] = defaultdict(Counter)
    word: Mapping[str, Counter[str]] = defaultdict(Counter)
    for typed, stemmed in pairs:
        typed, stemmed = typed.lower().strip(), stemmed.lower().strip()
        whole[typed][stemmed] += 1
        before, after = typed.split(), stemmed.split()
        if len(before) == len(after):
            for one, stem in zip(before, after, strict=True):
                word[one][stem] += 1
    answers = {typed: stems.most_common(1)[0][0] for typed, stems in whole.items()}
    words = {typed: stems.most_common(1)[0][0] for typed, stems in word.items()}

    def stem_word(word: str) -> str:
        bare = word.rstrip(_LAST_SIGNS)
        return words.get(word) or words.get(bare, bare) + word[len(bare) :]

    def stem(text: str) -> str:
        text = text.lower().strip()
        return answers.get(text) or " ".join(map(stem_word, text.split()))

    return stem
