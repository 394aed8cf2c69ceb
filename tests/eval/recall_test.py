"""Recall at K, by hand."""

import numpy as np

from flamingo_jax.eval import recall as recall_lib
from flamingo_jax.eval.recall import recall

SCORES = np.array([[0.9, 0.1, 0.5], [0.8, 0.7, 0.6], [0.3, 0.2, 0.1]])
IDS = np.arange(3)


def test_the_place_of_the_right_answer_counts():
    """Right ones stand in places 1, 2 and 3."""
    assert [recall(SCORES, IDS, IDS, k) for k in (1, 2, 3)] == [1 / 3, 2 / 3, 1.0]


def test_any_answer_of_the_right_text_will_do():
    assert recall(SCORES, np.array([0, 0, 1]), np.array([0, 0, 1]), 1) == 2 / 3


def test_a_tie_is_no_hit():
    assert recall(np.ones((2, 2)), np.arange(2), np.arange(2), 1) == 0.0


def test_many_queries_are_compared_a_few_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    scores, queries, answers = rng.random((50, 7)), rng.integers(0, 3, 50), np.arange(7) % 3
    want = recall_lib.in_nearest(scores, queries, answers, 2)
    monkeypatch.setattr(recall_lib, "_CHUNK", 15)
    np.testing.assert_array_equal(recall_lib.in_nearest(scores, queries, answers, 2), want)
    assert 0 < want.mean() < 1
