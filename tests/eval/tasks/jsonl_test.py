"""A user's own benchmark: what its lines become, and one line for each mistake."""

import json
import pathlib

import pytest

from flamingo_jax.eval.task import QUESTION, TaskError
from flamingo_jax.eval.tasks import catalog

CAPTION = {"id": "1", "split": "support", "image": "1.jpg", "captions": ["a cat", "the cat"]}
QUERY = {"id": "2", "split": "query", "image": "2.jpg", "captions": ["a dog"]}


def line(**changes) -> dict:
    """A query about a picture, with some of its fields changed; None leaves one out."""
    values = {"id": "q", "split": "query", "image": "q.jpg", "label": "cat"} | changes
    return {key: value for key, value in values.items() if value is not None}


def asked(answers, **changes) -> dict:
    return line(**{"label": None, "question": "what?", "answers": answers} | changes)


def read(folder, *lines, caption_template="Output: {}"):
    path = folder / "pets.jsonl"
    texts = [x if isinstance(x, str) else json.dumps(x) for x in lines]
    path.write_text("\n".join(texts) + "\n")
    return catalog.read(f"jsonl:{path}", None, caption_template)


def test_captions(tmp_path):
    task = read(tmp_path, CAPTION, QUERY)
    assert (task.name, task.metric, task.template.text) == ("pets", "cider", "Output: {answer}")
    (support,), (query,) = task.support, task.queries
    assert support.path == tmp_path / "1.jpg"
    assert (support.answer, support.references) == ("a cat", ("a cat", "the cat"))
    assert query.id == "2"


def test_the_models_own_template_is_used_but_for_questions_and_where_one_is_given(tmp_path):
    own = "A picture of {}"
    assert read(tmp_path, QUERY, caption_template=own).template.text == "A picture of {answer}"
    assert read(tmp_path, asked(["a"]), caption_template=own).template == QUESTION
    header = {"task": {"name": "mine", "template": "Look: {answer}", "max_tokens": 5}}
    task = read(tmp_path, header, CAPTION, QUERY, caption_template=own)
    assert (task.name, task.template.text, task.max_tokens) == ("mine", "Look: {answer}", 5)


@pytest.mark.parametrize(
    ("answers", "metric"), [(["a"] * 10, "vqa_accuracy"), (["a"] * 9, "exact_match")]
)
def test_ten_answers_make_it_vqa_accuracy(tmp_path, answers, metric):
    assert read(tmp_path, asked(answers)).metric == metric


def test_an_example_shows_the_most_frequent_answer_of_equal_ones_the_first(tmp_path):
    assert read(tmp_path, asked(["a", "b", "b"])).queries[0].answer == "b"
    assert read(tmp_path, asked(["a", "b"])).queries[0].answer == "a"


def test_labels_are_ranked_among_all_labels_of_the_file(tmp_path):
    task = read(tmp_path, line(), line(id="s", split="support", label="dog"))
    assert (task.metric, task.candidates) == ("top1", ("cat", "dog"))


def test_multiple_choice_has_candidates_of_its_own(tmp_path):
    task = read(tmp_path, asked(["b"], candidates=["a", "b"]))
    assert task.metric == "top1"
    assert task.candidates_of(task.queries[0]) == ("a", "b")


def test_candidates_of_lines_are_set_aside_where_the_metric_is_of_written_answers(tmp_path):
    header = {"task": {"metric": "exact_match"}}
    task = read(tmp_path, header, asked(["b"], candidates=["a", "b"]))
    assert (task.metric, task.candidates_of(task.queries[0])) == ("exact_match", ())


def test_roc_auc_takes_the_first_candidate_for_positive(tmp_path):
    header = {"task": {"metric": "roc_auc", "candidates": ["yes", "no"]}}
    task = read(tmp_path, header, line(label="no"), line(id="r", label="yes"))
    assert [query.relevance for query in task.queries] == [(0.0,), (1.0,)]


def test_spaces_around_texts_are_not_the_prompts(tmp_path):
    (query,) = read(tmp_path, asked([" a "], question=" what? ")).queries
    assert (query.answer, query.fields) == ("a", {"question": "what?"})


def test_videos_too(tmp_path):
    (query,) = read(tmp_path, line(image=None, video="clip.mp4"), line(id="2", label="b")).queries[
        :1
    ]
    assert query.path == tmp_path / "clip.mp4"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (['{"id": "1"'], "pets.jsonl:1: not JSON at column"),
        (["[1]"], "pets.jsonl:1: want an object, got list"),
        ([CAPTION], 'no line has "split": "query"'),
        ([QUERY, QUERY], "pets.jsonl:2: id '2' was used before"),
        ([QUERY, line()], "pets.jsonl:2: 'label' where"),
        ([line(captions=["a"])], "the line has captions and label"),
        ([line(label=None)], 'want "captions", or "question" and "answers", or "label"'),
        ([line(label=None, question="q")], '"question" and "answers" go together'),
        ([line(id=None)], "pets.jsonl:1: id is missing"),
        ([line(split="train")], "split is 'train'; use 'support' or 'query'"),
        ([line(image=None)], 'want "image" or "video"'),
        ([line(video="a.mp4")], 'want "image" or "video"'),
        ([line(image="http://x/y.jpg")], "is an address; download it"),
        ([line(imagee="x")], "unknown key 'imagee'; did you mean 'image'?"),
        ([line(label=3)], "label is 3; give a text"),
        ([line(label="\ud800")], "label is"),
        ([line(label=None, captions=[])], "captions must be a list of one text or more"),
        ([line()], "top1 wants two or more candidates, query 'q' has 1"),
        ([asked(["a"], candidates=["a", "a "])], "query 'q' has a candidate twice"),
        ([asked(["c"], candidates=["a", "b"])], "the answer 'c' of query 'q' is not among"),
        ([QUERY, {"task": {}}], "pets.jsonl:2: the task's own line must be the first"),
        ([{"task": {"metric": "bleu"}}, QUERY], "metric 'bleu' does not go with 'captions'"),
        ([{"task": {"metrik": "cider"}}, QUERY], "did you mean 'metric'?"),
        ([{"task": {"template": "x"}}, QUERY], "must hold {answer} once"),
        ([{"task": {"template": "{q} {answer}"}}, QUERY], "has a place {q}; use {answer}"),
        ([{"task": {"max_tokens": 0}}, QUERY], "max_tokens=0"),
        ([{"task": {"name": "a/b"}}, QUERY], "holds no /"),
        ([{"task": {"metric": "vqa_accuracy"}}, asked(["a"])], "wants two answers or more"),
        (
            [{"task": {"metric": "roc_auc", "candidates": ["cat", "no"]}}, line()],
            "queries of both labels",
        ),
        (
            [
                {"task": {"metric": "roc_auc", "candidates": ["cat", "dog"]}},
                line(id="r"),
                line(label="dog", candidates=["dog", "cat"]),
            ],
            "roc_auc wants the same two candidates, the positive one first, of all queries; 'q'",
        ),
        ([QUERY | {"candidates": ["a dog", "a cat"]}], 'jsonl:1: "candidates" go with "question"'),
        ([{"task": {"candidates": ["a dog"]}}, QUERY], "are not for cider, which scores what is"),
        (
            [{"task": {"metric": "exact_match", "candidates": ["cat", "dog"]}}, line()],
            'task: "candidates" are not for exact_match, which scores what is written: leave',
        ),
        ([line(image="a\0.jpg")], "image 'a\\x00.jpg' is no path"),
        (["9" * 5_000], "pets.jsonl:1: a number of too many digits"),
    ],
)
def test_mistakes_are_one_line_that_says_where(tmp_path, lines, says):
    with pytest.raises(TaskError) as raised:
        read(tmp_path, *lines)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_names_that_are_no_task():
    with pytest.raises(TaskError, match="no task 'mine': offered are"):
        catalog.check("mine")
    with pytest.raises(TaskError, match=r"none\.jsonl: no such file"):
        catalog.read("jsonl:none.jsonl", None, "{}")
    with pytest.raises(TaskError, match="no such home; write out the path"):
        catalog.read("jsonl:~nobody_of_this_name/mine.jsonl", None, "{}")


def test_the_benchmark_in_examples_is_one():
    path = pathlib.Path(__file__).parents[3] / "examples" / "benchmark.jsonl"
    task = catalog.read(f"jsonl:{path}", None, "A picture of {}")
    assert (task.name, task.metric, len(task.queries), len(task.support)) == (
        "photographs",
        "top1",
        2,
        2,
    )
