"""Benchmarks of videos: files in the official layouts become prompts, references and scores."""

import numpy as np
import pytest

from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.eval import few_shot, published
from flamingo_jax.eval.metrics import METRICS, Prediction
from flamingo_jax.eval.task import TaskError
from flamingo_jax.eval.tasks import catalog
from flamingo_jax.eval.tasks.rareact import phrase
from flamingo_jax.videos import decode_video
from tests.eval.tasks import official_video_files as official
from tests.eval.tasks.image_benchmarks_test import MAKE as IMAGES

MAKE = {
    name: getattr(official, name)
    for name in (
        *("msvdqa", "msrvttqa", "ivqa", "nextqa", "star", "vatex", "youcook2", "rareact"),
        "kinetics700",
    )
}
ONE_SHOT = {
    "msvdqa": "<image>Question: what is asleep? Answer: cat<EOC>"
    "<image>Question: what is asleep? Answer:",
    "msrvttqa": "<image>Question: who runs? Answer: dog<EOC><image>Question: who runs? Answer:",
    "ivqa": "<image>Question: what, then? Answer: wood<EOC><image>Question: what, then? Answer:",
    "nextqa": "<image>Question: why did the boy run Answer: to catch the dog<EOC>"
    "<image>Question: why did the boy run Answer:",
    "star": "<image>Question: Which object? Answer: The b.<EOC>"
    "<image>Question: Which object? Answer:",
    "vatex": "<image>Output: A man runs.<EOC><image>Output:",
    "youcook2": "<image>Output: stir the soup<EOC><image>Output:",
    "rareact": "<image>Caption: a person",
    "kinetics700": "<image>Output: abseiling<EOC><image>Output:",
}


def read(folder, name):
    MAKE[name](folder)
    return catalog.read(name, folder, "Output: {}")


@pytest.mark.parametrize("name", MAKE)
def test_the_prompt_byte_for_byte_and_the_videos_can_be_read(tmp_path, name):
    task = read(tmp_path, name)
    prompt = few_shot.task_prompt(task.template, task.support[:1], task.queries[0])
    assert few_shot.as_text(prompt) == ONE_SHOT[name]
    for example in (*task.support, *task.queries):
        assert decode_video(example.path, ImagePreprocessing(16)).shape[1:] == (16, 16, 3)
    assert task.name == name
    assert task.metric in METRICS
    assert not {e.path for e in task.support} & {e.path for e in task.queries}


@pytest.mark.parametrize("name", MAKE)
def test_a_missing_file_is_named_with_where_it_comes_from(tmp_path, name):
    read(tmp_path, name)
    for path in [p for p in tmp_path.rglob("*") if p.suffix in (".json", ".csv", ".txt")]:
        kept = path.read_bytes()
        path.unlink()
        with pytest.raises(TaskError, match=r"no such file; it comes from https://") as raised:
            catalog.read(name, tmp_path, "Output: {}")
        assert str(path) in str(raised.value)
        path.write_bytes(kept)


def test_the_paper_s_names_are_all_offered():
    assert set(catalog.READERS) == set(IMAGES) | set(MAKE)
    assert set(catalog.READERS) == set(published.TASKS) | {"imagenet", "kinetics700"}


def test_nextqa_has_second_answers_and_types_as_they_are_scored(tmp_path):
    task = read(tmp_path, "nextqa")
    why, before = task.queries
    assert why.references == ("to catch the dog", "the dog ran away")
    assert before.references == ("sleep",)
    assert (why.group, before.group) == ("CW", "TN")
    assert task.support[0].references == ("to catch the dog",)
    assert [e.id for e in task.queries] == ["101_0", "101_5"]


def test_written_answers_of_videos_score_by_their_first_word(tmp_path):
    task = read(tmp_path, "msvdqa")
    assert METRICS[task.metric].each(task.queries, [Prediction("Cat sleeping")]) == [1]


def test_star_chooses_among_a_questions_own_answers(tmp_path):
    task = read(tmp_path, "star")
    (query,) = task.queries
    assert task.candidates_of(query) == ("The a.", "The b.", "The c.", "The d.")
    assert query.group == "Interaction"
    prediction = Prediction("", query.candidates, np.array([-3.0, -1.0, -2.0, -4.0]))
    assert METRICS[task.metric].each([query], [prediction]) == [1]


@pytest.mark.parametrize(
    ("verb", "noun", "said"),
    [
        ("blend", "phone", "blends a phone"),
        ("wash", "apple", "washes an apple"),
        ("dry", "egg", "dries an egg"),
        ("play", "box", "plays a box"),
    ],
)
def test_actions_are_said_in_the_third_person(verb, noun, said):
    assert phrase(verb, noun) == said


def test_rareact_is_scored_by_action(tmp_path):
    task = read(tmp_path, "rareact")
    assert task.candidates == ("blends a phone", "washes an apple")
    assert (task.max_shots, len(task.support)) == (0, 0)
    scores = [[-1.0, -9.0], [-3.0, -1.0], [-2.0, -5.0]]
    predictions = [Prediction("", task.candidates, np.array(row)) for row in scores]
    np.testing.assert_allclose(METRICS["mean_wap"].each(task.queries, predictions), [1, 1])
    swapped = [Prediction("", task.candidates, -np.array(row)) for row in scores]
    # phone: its clip comes last of three; apple: its clip last of two, the other a phone's.
    np.testing.assert_allclose(METRICS["mean_wap"].each(task.queries, swapped), [1 / 3, 1 / 2])


@pytest.mark.parametrize(
    ("name", "file", "right", "wrong", "says"),
    [
        ("rareact", "rareact.csv", ",blend,phone,1", ",blend,phone,x", "ValueError: invalid lit"),
        ("star", "STAR_val.json", '"answer": "The b."', '"answer": "b"', "'b' of .* its 4 cand"),
    ],
)
def test_what_could_not_be_scored_is_known_at_once(tmp_path, name, file, right, wrong, says):
    MAKE[name](tmp_path)
    path = tmp_path / name / file
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    with pytest.raises(TaskError, match=f"{tmp_path / name}: .*{says}"):
        catalog.read(name, tmp_path, "{}")


@pytest.mark.parametrize(
    ("file", "right", "wrong", "says"),
    [
        (
            "test.csv",
            ",type",
            ",type,a0",
            r"csv:2: of the multiple choice; the open-ended .*/NExT-OE",
        ),
        ("test.csv", "0,CW", "0,XY", "csv:2: type is 'XY'; known are CW, CH"),
        ("train.csv", ",0,CW", "", r"csv:2: no field 'qid' in \["),
        ("train.csv", "64,48,", '64,48,"' + "why " * 40_000, r"csv: not CSV after line 1 \(field"),
        ("test.csv", "101,", "102,", "csv:2: video 102 is not in map_vid_vidorID.json"),
        ("add_reference_answer_test.json", "{", "[{", "json: not JSON at line 1"),
        ("add_reference_answer_test.json", '{"0": "the dog ran away"}', "3", "not laid out as the"),
    ],
)
def test_a_line_of_nextqa_that_is_damaged_is_named(tmp_path, file, right, wrong, says):
    MAKE["nextqa"](tmp_path)
    path = tmp_path / "nextqa" / file
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    with pytest.raises(TaskError, match=says):
        catalog.read("nextqa", tmp_path, "{}")


def test_kinetics_takes_support_videos_that_are_there(tmp_path):
    task = read(tmp_path, "kinetics700")
    assert task.candidates == ("abseiling", "air drumming")
    assert sorted(e.answer for e in task.support) == ["abseiling", "air drumming"]
