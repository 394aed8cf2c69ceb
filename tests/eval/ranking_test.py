"""Ranking: ties count against the model; candidate sets hold one right name and no disguises."""

import numpy as np
import pytest

from flamingo_jax.eval.ranking import candidate_sets, most_candidates, rank


def test_hand_worked_ranks():
    table = np.array([[-1.0, -2, -3], [-2.0, -1, -3], [-3.0, -1, -2]])
    ranking = rank(table)
    np.testing.assert_array_equal(ranking.ranks, [1, 2, 3])
    np.testing.assert_array_equal(ranking.first, [1, 0, 0])
    assert ranking.reciprocal.mean() == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_ties_count_against_the_right_name():
    ranking = rank(np.array([[-1.0, -1.0, -2.0], [-1.0, -1.0, -1.0], [-np.inf, -np.inf, 0.0]]))
    np.testing.assert_array_equal(ranking.ranks, [2, 3, 3])


def test_a_model_that_gives_all_the_same_scores_nothing():
    assert rank(np.zeros((10, 40))).first.sum() == 0


def test_nan_is_named():
    with pytest.raises(ValueError, match=r"log_probs\[1, 2\]"):
        rank(np.array([[0, 1, 2], [0, 1, np.nan]]))
    with pytest.raises(ValueError, match="column 0"):
        rank(np.zeros((3, 1)))


NAMES = ["cat", "Cat", "dog", "dog", "red  apple", "key", "ball"]


def test_candidates_are_distinct_and_only_the_first_is_right():
    for seed in range(20):
        ((right, *wrong),) = candidate_sets(["q"], ["CAT "], NAMES, 5, seed=seed)
        assert right == "CAT "
        assert sorted(wrong) == ["ball", "dog", "key", "red  apple"]


def test_other_true_names_are_never_wrong():
    for seed in range(20):
        (candidates,) = candidate_sets(
            ["q"], ["cat"], NAMES, 4, seed=seed, also_right=[["Red Apple"]]
        )
        assert set(candidates) == {"cat", "ball", "dog", "key"}


def test_draws_depend_on_seed_and_query_only():
    names = [f"n{i}" for i in range(100)]
    both = candidate_sets(["a", "b"], ["n1", "n1"], names, 10, seed=0)
    assert candidate_sets(["b"], ["n1"], names, 10, seed=0)[0] == both[1]
    assert both[0] != both[1]
    assert candidate_sets(["a"], ["n1"], names, 10, seed=1)[0] != both[0]


def test_most_candidates_is_what_the_poorest_query_has():
    queries = ["q", "r"], ["cat", "dog"]
    also_right = [["key", "Red apple"], []]
    assert most_candidates(queries[1], NAMES, also_right=also_right) == 3
    candidate_sets(*queries, NAMES, 3, seed=0, also_right=also_right)
    with pytest.raises(ValueError, match="ask for 3 at most"):
        candidate_sets(*queries, NAMES, 4, seed=0, also_right=also_right)
    assert most_candidates([], NAMES) == 1


def test_too_few_names_are_named():
    with pytest.raises(ValueError, match=r"'q': 4 wrong names .* ask for 5"):
        candidate_sets(["q"], ["cat"], NAMES, 6, seed=0)
    with pytest.raises(ValueError, match="num_candidates=1"):
        candidate_sets(["q"], ["cat"], NAMES, 1, seed=0)
