"""WUPS by hand, of similarities by hand."""

import itertools
import random

import pytest

from flamingo_jax.eval.wups import wups

NEAR = {("dog", "cat"): 0.8, ("cat", "dog"): 0.8, ("run", "walk"): 0.5, ("walk", "run"): 0.5}
NEAR |= {("run", "dog"): 0.1}  # and of a dog and running nothing


def similarity(one: str, other: str) -> float:
    return 1.0 if one == other else NEAR.get((one, other), 0.0)


@pytest.mark.parametrize(
    ("written", "right", "score"),
    [
        ("dog", "dog", 1),
        ("dog", "cat", 0.8),
        ("dog run", "run dog", 1),
        ("dog run", "cat walk", 0.8 * 0.5),
        ("dog run", "cat", min(0.8, 0.8)),  # running is near no cat, and is skipped
        ("dog run", "dog", 1 * 0.1),  # but is a little like a dog
        ("dog", "dog run", 1 * 0.1),  # the other way round it is the same, the lower one counting
        ("dog cat", "dog", 1 * 0.8),
        ("zzz", "dog", 0),
        ("zzz dog", "dog", 1),
        ("", "dog", 0),
        ("dog", "", 0),
        ("", "", 0),
    ],
)
def test_by_hand(written, right, score):
    assert wups(written.split(), right.split(), similarity) == pytest.approx(score)


def test_hundreds_of_answers_as_a_loop_finds_them():
    """The authors' loops: a word's best, products of those that have one, the lower direction."""
    draw, words = random.Random(0), ["dog", "cat", "run", "walk", "zzz"]

    def one_way(these, others):
        product, any_near = 1.0, False
        for word in these:
            best = 0.0
            for other in others:
                if similarity(word, other) > best:
                    best = similarity(word, other)
            if best:
                product, any_near = product * best, True
        return product if any_near else 0.0

    answers = [draw.choices(words, k=draw.randrange(5)) for _ in range(30)]
    for a, b in itertools.product(answers, answers):
        assert wups(a, b, similarity) == pytest.approx(min(one_way(a, b), one_way(b, a)))
