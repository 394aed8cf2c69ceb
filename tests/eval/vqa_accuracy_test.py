"""VQA accuracy by hand, and against a copy of the official scorer where one is installed."""

import importlib.util
import pathlib
import random

import pytest

from flamingo_jax.eval.vqa_accuracy import _MENDED, normalize, vqa_accuracy


@pytest.mark.parametrize(
    ("matches", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)]
)
def test_matches_of_ten_left_out_one_by_one(matches, score):
    answers = ["cat"] * matches + [f"other {i}" for i in range(10 - matches)]
    assert vqa_accuracy("cat", answers) == pytest.approx(score)


def test_where_all_ten_agree_nothing_is_normalised():
    assert vqa_accuracy("Yes.", ["yes"] * 10) == 0
    assert vqa_accuracy(" yes\n", ["yes"] * 10) == 1
    assert vqa_accuracy("Yes.", ["yes"] * 10, always=True) == 1
    assert vqa_accuracy("Yes.", ["yes"] * 9 + ["no"]) == 1


def test_equal_answers_of_two_people_are_two():
    assert vqa_accuracy("a cat", ["cat", "Cat", "dog", "dog"]) == pytest.approx(
        (1 / 3 + 1 / 3 + 2 / 3 + 2 / 3) / 4
    )


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("a. 1.5 .5 u.s. 3.", "1.5 .5 us 3"),
        ("The Two dogs", "2 dogs"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("black-and-white", "black and white"),  # between letters a sign becomes a space
        ("black- white", "black white"),  # beside a space it goes
        ("1,000-2", "10002"),  # and where there is a comma in a number
        ("what?!", "what"),
        ("well", "well"),
    ],
)
def test_normalised_by_hand(text, normal):
    assert normalize(text) == normal


def test_one_answer_has_no_others():
    with pytest.raises(ValueError, match="1 answers"):
        vqa_accuracy("a", ["a"])


@pytest.fixture(scope="module")
def official():
    """VQAEval of open_flamingo, loaded without what the package imports beside it."""
    found = importlib.util.find_spec("open_flamingo")
    if found is None:
        pytest.skip("open_flamingo is not installed")
    path = pathlib.Path(found.submodule_search_locations[0]) / "eval" / "vqa_metric.py"
    spec = importlib.util.spec_from_file_location("vqa_metric", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.VQAEval(_NoQuestions(), _NoQuestions())


class _NoQuestions:
    def getQuesIds(self):
        return []


@pytest.mark.reference
def test_normalises_as_the_official_scorer_does(official):
    rng = random.Random(0)
    words = ["a", "The", "ten", "none", "dog's", "1,000", "2.5", "u.s.", "x-ray", "what?", "(no)"]
    words += [*official.contractions, ";", "/", "-", ". ", "end.", '"q"', "a,b", "\\", "@home"]
    for _ in range(5_000):
        text = rng.choice(["", " "]).join(rng.choices(words, k=rng.randint(1, 5)))
        want = official.processDigitArticle(official.processPunctuation(text))
        assert normalize(text) == want, text


@pytest.mark.reference
def test_mends_the_contractions_of_the_official_scorer(official):
    lower = {k: v for k, v in official.contractions.items() if k == k.lower() and k != v}
    assert lower == _MENDED


@pytest.mark.reference
def test_scores_as_the_official_scorer_does(official):
    rng = random.Random(1)
    texts = ["yes", "Yes", "no", "2", "two", "a cat", "cat", "dont know", "don't know"]
    questions, answered = {}, {}
    for number in range(200):
        answers = [{"answer": rng.choice(texts), "answer_id": i} for i in range(10)]
        questions[number] = {"answers": answers, "question_type": "what"}
        answered[number] = {"answer": rng.choice(texts)}
    want = [
        vqa_accuracy(answered[n]["answer"], [a["answer"] for a in q["answers"]], always=True)
        for n, q in questions.items()
    ]
    official.vqa.qa, official.vqaRes.qa = questions, answered
    official.updateProgress = lambda share: None
    official.evaluate(list(questions))
    assert official.accuracy["overall"] == round(100 * sum(want) / len(want), 2)
