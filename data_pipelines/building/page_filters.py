"""Text quality and repetition rules of the MassiveWeb kind, and the language of a page.

Paper: "heuristics similar to MassiveWeb's" (appendix on data), without numbers. `GOPHER` has those
of MassiveWeb itself (Rae et al. 2021, appendix A1). The default is milder in three: pictures carry
a part of what a page says, so its text is shorter and more of it is captions and lists; by Gopher's
own limits 31 of 458 sound pages of GIMP's manual would go, by these 5. Words are what white space
separates. The language is py3langid's guess from the beginning of the text.
"""

import collections
import dataclasses
import re
from collections.abc import Sequence

import py3langid

from data_pipelines.errors import BadRecord

_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("-", "*", "\u2022", "\u2023", "\u25aa", "\u25cf", "\u25e6", "\u2013")
_LETTER = re.compile(r"[^\W\d_]")
_LANGUAGE_CHARACTERS = 2000


@dataclasses.dataclass(frozen=True)
class TextFilters:
    """Limits of a page's text; a page at the limit stays."""

    language: str = "en"  # ISO 639-1; "" takes every one
    min_words: int = 10  # as OBELICS; Gopher: 50
    max_words: int = 100_000
    min_mean_word_length: float = 3.0
    max_mean_word_length: float = 10.0
    max_symbol_share: float = 0.1  # of "#" and of ellipses to words
    max_bullet_line_share: float = 0.9
    max_ellipsis_line_share: float = 0.3
    min_alphabetic_word_share: float = 0.8
    min_stop_words: int = 1  # different ones, for English only; Gopher: 2
    max_repeated_line_share: float = 0.3
    max_repeated_line_character_share: float = 0.2
    max_repeated_paragraph_share: float = 0.3
    max_repeated_paragraph_character_share: float = 0.2
    # Share of characters in the most frequent 2-, 3- and 4-gram, and in repeated 5- to 10-grams, of
    # which Gopher's limits are 0.15 to 0.10.
    max_top_ngram_shares: tuple[float, ...] = (0.20, 0.18, 0.16)
    max_repeated_ngram_shares: tuple[float, ...] = (0.25, 0.24, 0.23, 0.22, 0.21, 0.20)


GOPHER = TextFilters(
    min_words=50,
    min_stop_words=2,
    max_repeated_ngram_shares=(0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
)


def check_text(text: str, filters: TextFilters) -> None:
    """Raises BadRecord where a rule is broken, the first one in the order of the fields.

    Reasons: `too_few_words`, `too_many_words`, `other_language`, `word_length`, `symbols`,
    `bullets`, `ellipses`, `not_alphabetic`, `few_stop_words`, `repeated_lines`,
    `repeated_paragraphs`, `frequent_ngram`, `repeated_ngrams`.
    """
    words = text.split()
    _at_least("too_few_words", "words", len(words), filters.min_words)
    _at_most("too_many_words", "words", len(words), filters.max_words)
    if filters.language and (guess := language(text)) != filters.language:
        raise BadRecord("other_language", f"language {guess}, want {filters.language}")
    _check_words(text, words, filters)
    _check_lines(text, filters)
    _check_ngrams(text, words, filters)


def language(text: str) -> str:
    """ISO 639-1 code of the language that the text is most likely in."""
    return py3langid.classify(text[:_LANGUAGE_CHARACTERS])[0]


def _check_words(text: str, words: Sequence[str], filters: TextFilters) -> None:
    count = len(words)
    mean = sum(map(len, words)) / max(1, count)
    _at_least("word_length", "characters a word", mean, filters.min_mean_word_length)
    _at_most("word_length", "characters a word", mean, filters.max_mean_word_length)
    ellipses = text.count("...") + text.count("\u2026")
    for number in (text.count("#"), ellipses):
        _at_most(
            "symbols", "# or ellipses a word", number / max(1, count), filters.max_symbol_share
        )
    alphabetic = sum(1 for word in words if _LETTER.search(word)) / max(1, count)
    _at_least(
        "not_alphabetic", "of words with a letter", alphabetic, filters.min_alphabetic_word_share
    )
    if filters.language == "en":
        found = _STOP_WORDS.intersection(map(str.lower, words))
        _at_least("few_stop_words", "different stop words", len(found), filters.min_stop_words)


def _check_lines(text: str, filters: TextFilters) -> None:
    lines = [line for line in text.split("\n") if line]
    count = max(1, len(lines))
    bullets = sum(line.startswith(_BULLETS) for line in lines) / count
    _at_most("bullets", "of lines with bullets", bullets, filters.max_bullet_line_share)
    ellipses = sum(line.endswith(("...", "\u2026")) for line in lines) / count
    _at_most("ellipses", "of lines end in ...", ellipses, filters.max_ellipsis_line_share)
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph]
    for parts, reason, most, most_characters in (
        (
            lines,
            "repeated_lines",
            filters.max_repeated_line_share,
            filters.max_repeated_line_character_share,
        ),
        (
            paragraphs,
            "repeated_paragraphs",
            filters.max_repeated_paragraph_share,
            filters.max_repeated_paragraph_character_share,
        ),
    ):
        again = {part: number - 1 for part, number in collections.Counter(parts).items()}
        _at_most(reason, f"of {reason}", sum(again.values()) / max(1, len(parts)), most)
        characters = sum(len(part) * number for part, number in again.items())
        share = characters / max(1, sum(map(len, parts)))
        _at_most(reason, f"of characters in {reason}", share, most_characters)


def _check_ngrams(text: str, words: Sequence[str], filters: TextFilters) -> None:
    total = max(1, len(text))
    for size, most in enumerate(filters.max_top_ngram_shares, start=2):
        grams = collections.Counter(_ngrams(words, size))
        gram, number = max(grams.items(), key=lambda item: (item[1], item[0]), default=((), 0))
        share = len(" ".join(gram)) * number / total if number > 1 else 0.0
        _at_most("frequent_ngram", f"of characters in one {size}-gram", share, most)
    for size, most in enumerate(filters.max_repeated_ngram_shares, start=5):
        share = _repeated_share(words, size) / total
        _at_most("repeated_ngrams", f"of characters in repeated {size}-grams", share, most)


def _ngrams(words: Sequence[str], size: int):
    return zip(*(words[start:] for start in range(size)), strict=False)


def _repeated_share(words: Sequence[str], size: int) -> int:
    """Characters of words that stand in an n-gram that stood before, each word counted once."""
    seen, repeated, counted = set(), 0, 0
    for start, gram in enumerate(_ngrams(words, size)):
        if gram in seen:
            repeated += sum(len(word) for word in words[max(start, counted) : start + size])
            counted = start + size
        seen.add(gram)
    return repeated


def _at_most(reason: str, what: str, value: float, limit: float) -> None:
    if value > limit:
        raise BadRecord(reason, f"{value:.3g} {what}: more than {limit:g}")


def _at_least(reason: str, what: str, value: float, limit: float) -> None:
    if value < limit:
        raise BadRecord(reason, f"{value:.3g} {what}: less than {limit:g}")
