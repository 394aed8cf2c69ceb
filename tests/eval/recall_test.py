"""Recall at K, by hand."""

import numpy as np

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
