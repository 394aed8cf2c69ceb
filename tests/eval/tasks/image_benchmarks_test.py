"""Benchmarks of pictures: files in the official layouts become prompts, references and scores."""

import json

import pytest

from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.eval import few_shot
from flamingo_jax.eval.metrics import METRICS, Prediction
from flamingo_jax.eval.task import TaskError
from flamingo_jax.eval.tasks import catalog
from flamingo_jax.images import decode_image
from tests.eval.tasks import official_files

MAKE = {
    "coco": lambda folder: official_files.karpathy(folder, "coco"),
    "flickr30k": lambda folder: official_files.karpathy(folder, "flickr30k"),
    "vqav2": lambda folder: official_files.coco_questions(folder, "vqav2"),
    "okvqa": lambda folder: official_files.coco_questions(folder, "okvqa", raw_answer="cats"),
    "textvqa": official_files.textvqa,
    "vizwiz": official_files.vizwiz,
    "hatefulmemes": official_files.hateful_memes,
    "visdial": official_files.visdial,
    "imagenet": official_files.imagenet,
}
ONE_SHOT = {
    "coco": "<image>Output: Picture 0.<EOC><image>Output:",
    "flickr30k": "<image>Output: Picture 0.<EOC><image>Output:",
    "vqav2": "<image>Question: What is it? Answer: cat<EOC><image>Question: What is it? Answer:",
    "okvqa": "<image>Question: What is it? Answer: cat<EOC><image>Question: What is it? Answer:",
    "textvqa": "<image>Question: what does it say? Answer: stop<EOC>"
    "<image>Question: what does it say? Answer:",
    "vizwiz": "<image>Question: What is this? Answer: unanswerable<EOC>"
    "<image>Question: What is this? Answer:",
    "hatefulmemes": '<image>is an image with written: "the "train" meme" on it. '
    "Is it hateful? Answer: no<EOC>"
    '<image>is an image with written: "the "test_seen" meme" on it. Is it hateful? Answer:',
    "visdial": "<image>a cat on a mat Question: is it grey Answer: yes "
    "Question: is it asleep Answer: no<EOC>"
    "<image>a cat on a mat Question: is it grey Answer: yes Question: is it asleep Answer:",
    "imagenet": "<image>Output: tench<EOC><image>Output:",
}
SPLITS = {
    "coco": "test (Karpathy)",
    "flickr30k": "test (Karpathy)",
    "vqav2": "val2014 (the paper: test-dev)",
    "okvqa": "val2014",
    "textvqa": "val",
    "vizwiz": "val (the paper: test-dev)",
    "hatefulmemes": "test_seen",
    "visdial": "val, rounds with dense annotations",
    "imagenet": "val",
}


def read(folder, name, template="Output: {}"):
    MAKE[name](folder)
    return catalog.read(name, folder, template)


@pytest.mark.parametrize("name", MAKE)
def test_the_prompt_byte_for_byte_and_the_pictures_can_be_read(tmp_path, name):
    task = read(tmp_path, name)
    prompt = few_shot.task_prompt(task.template, task.support[:1], task.queries[0])
    assert few_shot.as_text(prompt) == ONE_SHOT[name]
    for example in (*task.support, *task.queries):
        assert decode_image(example.path, ImagePreprocessing(16)).shape == (16, 16, 3)
    assert (task.name, task.split) == (name, SPLITS[name])
    assert task.metric in METRICS
    assert not {e.path for e in task.support} & {e.path for e in task.queries}


@pytest.mark.parametrize("name", MAKE)
def test_a_missing_file_is_named_with_where_it_comes_from(tmp_path, name):
    read(tmp_path, name)
    files = [p for p in tmp_path.rglob("*") if p.suffix in (".json", ".jsonl", ".txt")]
    for path in files:
        if path.name in ("test_seen.jsonl", "dev_seen.jsonl"):
            continue  # either will do
        kept = path.read_bytes()
        path.unlink()
        with pytest.raises(TaskError, match=r"no such file; it comes from .*https://") as raised:
            catalog.read(name, tmp_path, "Output: {}")
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)
        path.write_bytes(kept)


@pytest.mark.parametrize("name", MAKE)
def test_a_file_of_another_benchmark_is_named(tmp_path, name):
    read(tmp_path, name)
    files = [p for p in tmp_path.rglob("*") if p.suffix in (".json", ".jsonl", ".txt")]
    path = max(files)  # of Hateful Memes train, for either of the others will do
    path.write_text(json.dumps([{"x": 1}]))
    with pytest.raises(TaskError, match=str(path)):
        catalog.read(name, tmp_path, "Output: {}")


def test_a_record_without_what_it_should_hold_is_one_line(tmp_path):
    read(tmp_path, "coco")
    path = tmp_path / "coco" / "dataset_coco.json"
    path.write_text(path.read_text().replace('"raw"', '"text"'))
    with pytest.raises(TaskError, match=r"coco: a file is not laid out .* KeyError: 'raw'"):
        catalog.read("coco", tmp_path, "{}")


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([{"split": "train"}], r"coco: no queries \(split test \(Karpathy\)\)"),
        ([{"split": "test", "sentences": [{"raw": None}]}], "AttributeError: 'NoneType' object"),
    ],
)
def test_so_are_no_queries_and_values_of_another_kind(tmp_path, images, says):
    official_files.karpathy(tmp_path, "coco")
    usual = {"imgid": 0, "filepath": "val2014", "filename": "0.jpg", "sentences": [{"raw": "a"}]}
    path = tmp_path / "coco" / "dataset_coco.json"
    official_files.write_json(path, {"images": [usual | image for image in images]})
    with pytest.raises(TaskError, match=says):
        catalog.read("coco", tmp_path, "{}")


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5_000], ids=["nested", "long"])
def test_so_is_json_that_python_does_not_read(tmp_path, text):
    path = tmp_path / "coco" / "dataset_coco.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(TaskError, match=f"{path}: .* too many"):
        catalog.read("coco", tmp_path, "{}")


def test_captions_use_the_models_template_and_every_caption_scores(tmp_path):
    task = read(tmp_path, "coco", "A picture of {}")
    assert task.template.text == "A picture of {answer}"
    assert task.queries[0].references == ("Picture 3.", "The test picture")


def test_okvqa_predictions_are_stemmed_as_its_answers_are(tmp_path):
    task = read(tmp_path, "okvqa")
    metric = METRICS[task.metric]
    (score,) = metric.each(task.queries, [Prediction(task.rewrite("Cats"))])
    assert score == 1
    assert metric.version == "vqa_accuracy 1 (official rules), stems of the annotations 2"


def test_equal_answers_without_ids_count(tmp_path):
    task = read(tmp_path, "vizwiz")
    (score,) = METRICS["vqa_accuracy"].each(task.queries, [Prediction("unanswerable")])
    assert score == 1


@pytest.mark.parametrize("label", ["none", None, -1])  # as it was released, and as it is copied
def test_hateful_memes_without_labels_of_the_test_are_scored_on_dev(tmp_path, label):
    official_files.hateful_memes(tmp_path, test_labels=False)
    path = tmp_path / "hatefulmemes" / "test_seen.jsonl"
    if label != "none":
        lines = map(json.loads, path.read_text().splitlines())
        path.write_text("\n".join(json.dumps(line | {"label": label}) for line in lines))
    task = catalog.read("hatefulmemes", tmp_path, "{}")
    assert task.split == "dev_seen (the paper: test_seen)"
    assert [q.relevance for q in task.queries] == [(0.0,), (1.0,)]
    assert task.candidates == ("yes", "no")
    path.write_text('{"id": 1, "img": "img/1.png", "text": "a", "label": "yes"}')
    with pytest.raises(TaskError, match=r"test_seen\.jsonl:1: label is 'yes', want 0 or 1"):
        catalog.read("hatefulmemes", tmp_path, "{}")


def test_visdial_options_have_the_relevance_of_their_round(tmp_path):
    (query,) = read(tmp_path, "visdial").queries
    assert query.candidates == ("i think so", "yes", "no")
    assert query.relevance == (0.0, 0.2, 1.0)
    assert query.answer == "no"


def test_imagenet_draws_five_of_a_class_and_refuses_a_name_of_two_classes(tmp_path):
    task = read(tmp_path, "imagenet")
    assert task.candidates == ("tench", "goldfish")
    assert [e.answer for e in few_shot.support_pool(task, 0)] == ["tench"] * 5 + ["goldfish"] * 5
    official_files.write_lines(
        tmp_path / "imagenet" / "class_names.txt", "n01440764 crane", "n01443537 crane"
    )
    with pytest.raises(TaskError, match="the name 'crane' was used before"):
        catalog.read("imagenet", tmp_path, "{}")
