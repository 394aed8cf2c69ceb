"""Each rule by a text that breaks it alone, and repetition against a slow count."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.building import page_filters
from data_pipelines.building.page_filters import GOPHER, TextFilters, check_text
from data_pipelines.errors import BadRecord

WORDS = """
    the of and to in that with have water river mountain garden picture street market window
    winter summer bridge forest house people country teacher music morning animal journey
    island village kitchen history weather holiday science library doctor question answer
    reason
"""
LENIENT = TextFilters(language="")


def prose(num_words: int = 120, per_line: int = 12) -> str:
    rng = random.Random(1)
    words = rng.choices(WORDS.split(), k=num_words)
    lines = [" ".join(words[i : i + per_line]) for i in range(0, num_words, per_line)]
    return "\n\n".join(lines)


def test_prose_passes():
    check_text(prose(), TextFilters())
    check_text(prose(), GOPHER)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("too_few_words", "the few words of this"),
        ("too_few_words", ""),
        ("too_many_words", "word and " * 60_000),
        ("other_language", "Der schnelle braune Fuchs springt über den faulen Hund und läuft " * 3),
        ("word_length", "a b c d e f g h i the to of in " * 5),
        ("word_length", "the antidisestablishmentarianism incomprehensibilities " * 5),
        ("symbols", prose() + " #" * 30),
        ("symbols", prose() + " and..." * 30),
        ("not_alphabetic", prose() + " 1234" * 60),
        ("few_stop_words", "Big green mountains rise above small quiet villages near rivers"),
        ("bullets", "\n".join(f"- {line}" for line in prose().split("\n\n"))),
        ("ellipses", "\n".join(f"{line}\u2026" for line in prose(400, 40).split("\n\n"))),
        ("repeated_lines", prose() + "\n\nthe river and the bridge" * 9),
        ("repeated_ngrams", prose() + "\n\n" + prose().replace("\n\n", " ")),
        ("frequent_ngram", prose(40, 40) + " winter garden" * 9 + " of" * 3),
    ],
)
def test_each_rule(reason, text):
    english = reason in ("other_language", "few_stop_words")
    with pytest.raises(BadRecord) as caught:
        check_text(text, TextFilters() if english else LENIENT)
    assert caught.value.reason == reason


def test_other_languages_can_be_asked_for():
    german = "Der Fluss und der Berg und das Haus in dem Dorf sind alt und schön. " * 2
    check_text(german, TextFilters(language="de", max_repeated_ngram_shares=(),
                                   max_top_ngram_shares=(), max_repeated_paragraph_share=1,
                                   max_repeated_line_share=1))  # fmt: skip
    with pytest.raises(BadRecord, match="language de, want en"):
        check_text(german, TextFilters())


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(2, 5))
def test_repeated_characters_against_a_slow_count(words, size):
    """Word i is repeated if some n-gram over it stood, or began, before."""
    repeated, covered = 0, 0
    for start in range(len(words) - size + 1):
        gram = words[start : start + size]
        if any(words[s : s + size] == gram for s in range(start)):
            for place in range(max(start, covered), start + size):
                repeated += len(words[place])
            covered = start + size
    assert page_filters._repeated_share(words, size) == repeated
