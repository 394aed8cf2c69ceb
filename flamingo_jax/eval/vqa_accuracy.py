"""VQA accuracy, the paper's score of VQAv2, OK-VQA, TextVQA and VizWiz.

Ten people answered each question. An answer that three of the others gave is right; it is held
against each nine of the ten in turn, and the mean is the score: of ten, no match scores 0, one 0.3,
two 0.6, three 0.9, more 1.

The rules are the official scorer's, oddities and all. Texts are normalised only where the people's
answers are not all the same, so that "Yes." is wrong where all ten wrote "yes"; `always=True` does
it everywhere, as OpenFlamingo's scorer does. And which answers are "the others" goes by their
place, so equal answers of two people count twice; scorers that leave out equal ones score VizWiz
tens of points lower.
"""

import functools
import re
from collections.abc import Sequence

VERSION = "vqa_accuracy 1 (official rules)"

_SIGNS = (*';/[]"{}()=+\\_-><@`,?!',)
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MAX_PERIODS = 32  # the official scorer passes a flag of this value as the count
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_WORDS)}
_ARTICLES = frozenset(("a", "an", "the"))
# What the scorer mends where an apostrophe is left out; not what is a word without one (we'll).
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've
    hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't
    mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't
    she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
    someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've
    we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've
    who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll
    y'all'd've you'd you'd've you'll you're you've
"""


def vqa_accuracy(prediction: str, answers: Sequence[str], *, always: bool = False) -> float:
    """The score in [0, 1] of one prediction against people's answers, of which there are ten.

    ValueError for fewer than two, which leave no others.
    """
    if len(answers) < 2:
        raise ValueError(f"{len(answers)} answers: VQA accuracy holds one against the others")
    prediction, answers = _one_line(prediction), [_one_line(answer) for answer in answers]
    if always or len(set(answers)) > 1:
        prediction, answers = normalize(prediction), [normalize(answer) for answer in answers]
    matches = [answer == prediction for answer in answers]
    total = sum(matches)
    return sum(min(1.0, (total - own) / 3) for own in matches) / len(answers)


@functools.lru_cache(maxsize=1 << 16)
def normalize(text: str) -> str:
    """Without punctuation and articles, numbers as digits, apostrophes put back."""
    kept = text
    for sign in _SIGNS:
        beside_space = f"{sign} " in text or f" {sign}" in text
        delete = beside_space or _COMMA_IN_NUMBER.search(text) is not None
        kept = kept.replace(sign, "" if delete else " ")
    kept = _PERIOD.sub("", kept, count=_MAX_PERIODS)
    words = [_DIGITS.get(word, word) for word in kept.lower().split()]
    return " ".join(_MENDED.get(word, word) for word in words if word not in _ARTICLES)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _mended() -> dict[str, str]:
    """Each contraction by what it is without one of its apostrophes."""
    table = {"somebody'd": "somebodyd"}  # the official table has this one the wrong way round
    for right in _CONTRACTIONS.split():
        for place, letter in enumerate(right):
            if letter == "'":
                table[right[:place] + right[place + 1 :]] = right
    return table


_MENDED = _mended()
