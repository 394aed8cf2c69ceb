"""Shot selection: the order RICES gives, and draws that depend on seed and query only."""

import numpy as np
import pytest

from flamingo_jax.eval import retrieval
from flamingo_jax.eval.retrieval import pool, random_shots, rices_shots


def test_rices_puts_the_most_similar_last_whatever_the_lengths():
    support = np.array([[0.0, 5.0], [100.0, 1.0], [1.0, 1.0], [-3.0, 0.0]], np.float32)
    query = np.array([[2.0, 0.0], [0.0, -1.0]], np.float32)
    np.testing.assert_array_equal(rices_shots(query, support, 3), [[0, 2, 1], [2, 1, 3]])


def test_rices_prefers_the_earlier_of_equal_pictures():
    support = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]], np.float32)
    np.testing.assert_array_equal(rices_shots(support[:1], support, 2), [[2, 0]])


def test_rices_leaves_the_query_itself_out():
    features = np.eye(4, dtype=np.float32) + 0.1
    ids = list("abcd")
    shots = rices_shots(features, features, 3, query_ids=ids, support_ids=ids)
    assert all(row not in shots[row] for row in range(4))
    with pytest.raises(ValueError, match="allows 0 to 3"):
        rices_shots(features, features, 4, query_ids=ids, support_ids=ids)


def test_queries_may_be_more_than_are_compared_at_once(monkeypatch):
    features = np.random.default_rng(0).standard_normal((8, 3))
    ids = [f"p{i}" for i in range(8)]
    for own in ({}, {"query_ids": ids, "support_ids": ids}):
        whole = rices_shots(features, features, 3, **own)
        with monkeypatch.context() as patch:
            patch.setattr(retrieval, "QUERIES_AT_ONCE", 3)
            np.testing.assert_array_equal(rices_shots(features, features, 3, **own), whole)
        assert np.array_equal(whole[:, -1], np.arange(8)) == (not own)


def test_random_shots_are_distinct_and_never_the_query():
    ids = [f"p{i}" for i in range(6)]
    for seed in range(20):
        for row, shots in enumerate(random_shots(ids, ids, 5, seed=seed)):
            assert sorted(shots) == [i for i in range(6) if i != row]


def test_a_querys_draw_does_not_depend_on_the_other_queries():
    support = [f"s{i}" for i in range(50)]
    together = random_shots(["a", "b", "c"], support, 4, seed=7)
    np.testing.assert_array_equal(random_shots(["c"], support, 4, seed=7)[0], together[2])
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(random_shots(["a"], support, 4, seed=8)[0], together[0])


def test_questions_about_one_picture_have_draws_of_their_own():
    support = [f"s{i}" for i in range(50)] + ["picture"]
    drawn = random_shots(["picture"] * 2, support, 4, seed=0, draw_ids=["q1", "q2"])
    assert not np.array_equal(*drawn)
    assert 50 not in drawn
    np.testing.assert_array_equal(
        drawn[1:], random_shots(["picture"], support, 4, seed=0, draw_ids=["q2"])
    )


def test_random_shots_are_uniform():
    queries = [f"q{i}" for i in range(4000)]
    counts = np.bincount(random_shots(queries, list("abcde"), 1, seed=0)[:, 0], minlength=5)
    assert abs(counts / 4000 - 0.2).max() < 0.03


def test_no_shots():
    assert random_shots(["a"], ["b"], 0, seed=0).shape == (1, 0)
    assert rices_shots(np.ones((2, 3)), np.ones((1, 3)), 0).shape == (2, 0)


def test_pool_means_over_every_place():
    features = np.arange(2 * 1 * 4 * 3, dtype=np.float32).reshape(2, 1, 4, 3)
    np.testing.assert_allclose(pool(features), [[4.5, 5.5, 6.5], [16.5, 17.5, 18.5]])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="pool them"):
        rices_shots(np.ones((2, 4, 3)), np.ones((5, 3)), 1)
    with pytest.raises(ValueError, match=r"features\[1\]"):
        rices_shots(np.ones((1, 3)), np.array([[1, 1, 1], [0, 0, 0.0]]), 1)
    with pytest.raises(ValueError, match="num_shots=3"):
        random_shots(["a"], ["b", "c"], 3, seed=0)
