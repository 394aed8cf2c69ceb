"""Scores by hand, and how they are put together."""

import numpy as np
import pytest

from flamingo_jax.eval import metrics, ndcg, okvqa_stems, roc_auc, top_k
from flamingo_jax.eval.exact_match import exact_match
from flamingo_jax.eval.ivqa_accuracy import ivqa_accuracy
from flamingo_jax.eval.mean_wap import Clip, mean_wap
from flamingo_jax.eval.published import FINE_TUNED, MODELS, Point, published
from flamingo_jax.eval.task import Example
from flamingo_jax.prompts import ImagePart


@pytest.mark.parametrize(
    ("prediction", "score"),
    [("A  Cat.", 1), ("cat", 0), ("a cat!?", 1), ("a cat on a mat", 0), ("", 0)],
)
def test_exact_match_forgives_case_spaces_and_signs_at_the_end(prediction, score):
    assert exact_match(prediction, ["dog", "a cat"]) == score


def test_exact_match_of_the_first_word():
    assert exact_match("Cat, sitting", ["cat"], first_word=True) == 1
    assert exact_match("the cat", ["cat"], first_word=True) == 0


@pytest.mark.parametrize(("prediction", "score"), [("x", 0), ("saw.", 0.5), ("Wood", 1)])
def test_ivqa_wants_two_of_five(prediction, score):
    assert ivqa_accuracy(prediction, ["wood", "wood", "wood", "saw", "log"]) == score


def test_roc_auc_counts_pairs():
    scores = np.array([0.9, 0.4, 0.4, 0.1, 0.4])
    positive = np.array([True, True, False, False, False])
    # Of six pairs four are won and two tied: 0.4 against each other 0.4.
    assert roc_auc.roc_auc(scores, positive) == pytest.approx((4 + 2 / 2) / 6)
    assert roc_auc.roc_auc(-scores, positive) == pytest.approx(1 - 5 / 6)
    with pytest.raises(ValueError, match="0 negative"):
        roc_auc.roc_auc(scores, np.ones(5, bool))


def test_ndcg_by_hand():
    relevance = np.array([0.0, 1.0, 0.5, 0.0])
    # Two are relevant, so two ranks count; the best order is 1.0 then 0.5.
    best = 1 / np.log2(2) + 0.5 / np.log2(3)
    got = ndcg.ndcg(np.array([4.0, 3.0, 2.0, 1.0]), relevance)
    assert got == pytest.approx((0 + 1 / np.log2(3)) / best)
    assert ndcg.ndcg(np.array([0.0, 2.0, 1.0, 0.0]), relevance) == pytest.approx(1)
    assert ndcg.ndcg(np.zeros(4), relevance) == 0  # of equal scores the irrelevant comes first
    assert ndcg.ndcg(np.zeros(4), np.zeros(4)) == 0


def test_top_k_and_ties_against_the_model():
    log_probs = np.array([-1.0, -2.0, -2.0, -3.0])
    assert [top_k.in_top_k(log_probs, i, 1) for i in range(4)] == [1, 0, 0, 0]
    assert [top_k.in_top_k(log_probs, i, 2) for i in range(4)] == [1, 0, 0, 0]
    assert [top_k.in_top_k(log_probs, i, 3) for i in range(4)] == [1, 1, 1, 0]


def test_mean_wap_by_hand():
    actions = [("cut", "apple"), ("cut", "phone"), ("wash", "phone")]
    clips = [
        Clip("v1", "cut", "apple", 1),
        Clip("v1", "cut", "apple", 1),
        Clip("v2", "cut", "apple", 3),
        Clip("v3", "cut", "apple", 0),
        Clip("v4", "cut", "phone", 1),
        Clip("v5", "wash", "phone", 1),
    ]
    scores = np.zeros((6, 3))
    # cut apple: positives rows 0, 1 (a video: half each); hard: row 2 and row 4, of the same verb;
    # others: row 3 and row 5. In the order 0, 2, 1, 4, 3, 5 precision is 0.5/0.5 and 1/2.
    scores[:, 0] = [6, 4, 5, 2, 3, 1]
    # cut phone: positive row 4 comes second of rows 0, 1 (a video), 4 and 5, all hard.
    scores[:, 1] = [1, 1, 9, 9, 5, 7]
    # wash phone: positive row 5, hard row 4, others rows 0 and 1; all are equal.
    np.testing.assert_allclose(
        mean_wap(scores, clips, actions), [0.5 * 1 + 0.5 * 0.5, 1 / 2, 1 / 3]
    )


def test_okvqa_stems_are_those_the_annotations_pair():
    stem = okvqa_stems.learn([("Horses", "horse"), ("riding horses", "ride horse"), ("bus", "bus")])
    assert stem("horses") == "horse"
    assert stem("Riding buses") == "ride buses"
    assert stem("bus riding") == "bus ride"
    assert stem("Riding, horses!") == "ride, horse!"


def example(number: int, answer: str, **fields) -> Example:
    return Example(str(number), ImagePart(f"{number}.jpg"), answer, (answer,), **fields)


def test_means_over_types_weigh_types_alike():
    examples = [example(i, "a", group="x" if i < 3 else "y") for i in range(4)]
    log_probs = [np.array([0.0, -1.0])] * 3 + [np.array([-1.0, 0.0])]
    predictions = [metrics.Prediction("", ("a", "b"), x) for x in log_probs]
    metric = metrics.METRICS["top1_of_types"]
    each = metric.each(examples, predictions)
    interval, of_seeds, kind = metrics.summarize(metric, examples, [each])
    assert of_seeds == [pytest.approx(50)]
    assert interval.mean == pytest.approx(50)
    assert kind == "bootstrap"
    assert metrics.by_group(each, examples) == {"x": 100, "y": 0}


def test_seeds_are_averaged_and_shares_have_wilsons_interval():
    examples = [example(i, "a") for i in range(8)]
    metric = metrics.METRICS["exact_match"]
    none, all_right = np.zeros(8), np.ones(8)
    interval, _, kind = metrics.summarize(metric, examples, [none])
    assert (interval.mean, kind) == (0, "Wilson")
    assert interval.high == pytest.approx(32, abs=1)
    interval, of_seeds, kind = metrics.summarize(metric, examples, [none, all_right])
    assert (interval.mean, of_seeds, kind) == (50, [0, 100], "bootstrap")


def test_intervals_of_roc_auc_draw_queries_again():
    rng = np.random.default_rng(0)
    examples = [example(i, "yes", relevance=(float(i % 2),)) for i in range(60)]
    values = rng.normal(size=60) + np.arange(60) % 2
    metric = metrics.METRICS["roc_auc"]
    interval, (score,), _ = metrics.summarize(metric, examples, [values])
    assert interval.mean == score
    assert 50 < interval.low < score < interval.high < 100


def test_published_numbers_stand_where_the_paper_prints_them():
    by_key = {(p.model, p.shots): p.score for p in published("okvqa")}
    assert by_key["Flamingo-3B", 0] == 41.2
    assert by_key["Flamingo-80B", 32] == 57.8
    assert {p.shots for p in published("visdial")} == {0, 4, 8, 16}
    assert [(p.model, p.score) for p in published("rareact")] == list(
        zip(MODELS, (58.4, 57.9, 60.8), strict=True)
    )
    assert [p.score for p in published("kinetics700")] == [58.3, 60.9, 63.5]
    assert published("mine") == published("mine", fine_tuned=True) == []
    tuned = published("vqav2", fine_tuned=True)
    assert [point for point in tuned if not point.shots] == [Point(FINE_TUNED, 0, 82.0)]
    assert {p.shots for p in published("okvqa", fine_tuned=True)} == {4, 8, 16, 32}
    assert all(m.version for m in metrics.METRICS.values())
