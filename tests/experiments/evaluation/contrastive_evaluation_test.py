"""Benchmarks by two towers, held against hand-worked points, and the command's one-line errors."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.cli import UserError
from experiments.configs import contrastive
from experiments.evaluation import contrastive_evaluation, kept_points
from experiments.evaluation.contrastive_evaluation import Settings, evaluate
from experiments.evaluation.kept_points import KeptPoints
from experiments.storage.workdir import Workdir
from flamingo_jax.config import ImagePreprocessing, from_dict
from flamingo_jax.contrastive_config import TwoTowersConfig
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.eval.published_contrastive import published
from flamingo_jax.eval.tasks import jsonl
from flamingo_jax.models.two_towers import TwoTowers
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights import stage_folder
from flamingo_jax.weights.encoders import two_towers
from tests import buckets
from tests.data_pipelines import tiny_video
from tests.experiments.evaluation import drawn_benchmark
from tests.experiments.prompt_files import ROOT

COLORS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)


class ColorModel:
    """Pictures and texts as their colours: it cannot tell shapes."""

    class config:
        class vision:
            preprocessing = ImagePreprocessing(size_px=32, pad=(255, 255, 255))

    def embed_media(self, media):
        ink = [255.0 - frames.reshape(-1, 3).mean(0) for frames in media]
        absent = np.stack(ink)  # of each channel what is not white
        point = absent.sum(1, keepdims=True) - absent * 1.5
        return point / np.linalg.norm(point, axis=1, keepdims=True)

    def embed_texts(self, texts):
        known = [[color in text for color in drawn_benchmark.COLORS] for text in texts]
        points = np.array(known, np.float32) @ COLORS + 1e-3
        return points / np.linalg.norm(points, axis=1, keepdims=True)


def rows(folder, task, **settings):
    kept = KeptPoints(folder / "points", task.name, [])
    return {row["metric"]: row for row in evaluate(ColorModel(), task, Settings(**settings), kept)}


def test_captions_are_sought_in_both_directions(tmp_path):
    """Two of six pictures share a colour, and each has two captions that say it; a tie is none."""
    task = jsonl.read(drawn_benchmark.write(tmp_path, "captions"), "{}")
    found = rows(tmp_path, task)
    assert {metric: row["score"] for metric, row in found.items()} == {
        "text_recall@1": 0.0,  # the other picture's two captions tie
        "text_recall@5": 100.0,
        "text_recall@10": 100.0,
        "picture_recall@1": 50.0,  # one of two pictures is a shade nearer
        "picture_recall@5": 100.0,
        "picture_recall@10": 100.0,
    }
    assert found["text_recall@5"]["num_queries"] == 6
    assert found["picture_recall@5"]["num_queries"] == 12
    assert all(row["published"] is None for row in found.values())


def test_the_nearest_class_is_the_answer(tmp_path):
    path = drawn_benchmark.write(tmp_path, "label")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[1:]:
        line["label"] = drawn_benchmark.COLORS[int(line["id"][1:]) // 2]
    path.write_text("\n".join(map(json.dumps, lines)))
    (row,) = rows(tmp_path, jsonl.read(path, "{}"), templates=["one {} thing"]).values()
    assert (row["metric"], row["score"], row["num_queries"]) == ("top1", 100.0, 6)
    assert row["templates"] == ["one {} thing"]


def test_a_query_with_classes_of_its_own_has_those_to_choose_from(tmp_path):
    """One of them is no class of the others, and the nearest of all is not among them."""
    path = drawn_benchmark.write(tmp_path, "label", candidates=drawn_benchmark.COLORS)
    header, *lines = (json.loads(line) for line in path.read_text().splitlines())
    for line in lines:
        line["label"] = drawn_benchmark.COLORS[int(line["id"][1:]) // 2]
    right = lines[-1]["label"]
    wrong = [color for color in drawn_benchmark.COLORS if color != right]
    lines[-1] |= {"split": "query", "label": f"dark {right}"}
    lines[-1]["candidates"] = [wrong[0], lines[-1]["label"]]
    path.write_text("\n".join(map(json.dumps, [header, *lines])))
    (row,) = rows(tmp_path, jsonl.read(path, "{}"), templates=["{}"]).values()
    assert row["score"] == 100.0


def test_videos_are_the_mean_of_their_frames_and_have_their_own_descriptions(tmp_path):
    lines = []
    for number, color in enumerate(drawn_benchmark.COLORS):
        pixels = np.full((64, 64, 3), 255 * COLORS[number], np.uint8)
        (tmp_path / f"{number}.mp4").write_bytes(tiny_video.video(9, pixels=pixels))
        line = {"id": str(number), "split": "query", "video": f"{number}.mp4", "label": color}
        lines.append(json.dumps(line))
    (tmp_path / "v.jsonl").write_text("\n".join(lines))
    (row,) = rows(tmp_path, jsonl.read(tmp_path / "v.jsonl", "{}")).values()
    assert row["score"] == 100.0
    assert "A video of {}." in row["templates"]


def test_what_cannot_be_read_is_left_out_and_too_much_of_it_is_refused(tmp_path):
    path = drawn_benchmark.write(tmp_path, "captions")
    (tmp_path / "00.png").write_bytes(b"no picture")
    found = rows(tmp_path, jsonl.read(path, "{}"), max_skipped_share=0.5)
    assert found["text_recall@5"]["num_queries"] == 5
    assert sum(found["text_recall@5"]["skipped_queries"].values()) == 1
    with pytest.raises(UserError, match=r"captions: 1 of 6 queries cannot be read .*00\.png"):
        rows(tmp_path, jsonl.read(path, "{}"))


def test_a_task_of_questions_is_refused(tmp_path):
    """With answers to choose from, too: towers would be shown those without the question."""
    for header in ({}, {"candidates": drawn_benchmark.COLORS}):
        task = jsonl.read(drawn_benchmark.write(tmp_path, "question", **header), "{}")
        with pytest.raises(UserError, match="question: neither classes nor captions"):
            contrastive_evaluation.check(task)


def test_results_are_written_with_the_papers_beside(tmp_path):
    task = jsonl.read(drawn_benchmark.write(tmp_path, "captions"), "{}")
    (tmp_path / stage_folder.WEIGHTS).write_bytes(b"colours")
    out = Workdir.given("--out", str(tmp_path))
    contrastive_evaluation.run(ColorModel(), tmp_path, [task], Settings(), out, ["x"])
    written = json.loads((tmp_path / "results.json").read_text())
    assert [row["metric"] for row in written["results"]][:2] == ["text_recall@1", "text_recall@5"]
    assert "| captions | query | text_recall@5 | 100.0 |" in (tmp_path / "results.md").read_text()
    assert published("coco", "picture_recall@1") == 48.0
    assert published("kinetics700", "top1_top5") == 62.9
    assert published("vatex", "text_recall@1") is None


def test_from_a_bucket_another_machine_goes_on(tmp_path, monkeypatch):
    """What the first has embedded, two files of two; not where the model is another."""
    task = jsonl.read(drawn_benchmark.write(tmp_path, "captions"), "{}")
    weights = tmp_path / stage_folder.WEIGHTS
    monkeypatch.setattr(contrastive_evaluation, "_PICTURES_AT_ONCE", 2)
    monkeypatch.setattr(kept_points, "_A_FILE", 2)
    embedded, model = [], ColorModel()

    def embed(media):
        embedded.append(len(media))
        if len(embedded) == 3:
            raise RuntimeError("died")
        return ColorModel.embed_media(model, media)

    monkeypatch.setattr(model, "embed_media", embed, raising=False)

    def scores(machine: str, content: bytes) -> list[float]:
        monkeypatch.setenv("FLAMINGO_JAX_CACHE", str(tmp_path / machine))
        weights.write_bytes(content)
        with Workdir.given("--out", "gs://bucket/towers/scores") as out:
            out.bring()
            out.begin()
            found = contrastive_evaluation.run(model, tmp_path, [task], Settings(), out, ["x"])
        return [row["score"] for row in found]

    with buckets.serve("bucket"):
        with pytest.raises(RuntimeError, match="died"):
            scores("first", b"colours")
        found = scores("second", b"colours")
        assert embedded == [2, 2, 2, 2]
        assert scores("third", b"colours") == found
        assert embedded == [2, 2, 2, 2]
        assert scores("fourth", b"other colours") == found
        for path in (tmp_path / "third").rglob("*.npz"):
            path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(UserError, match=r"000000\.npz is damaged: delete it"):
            scores("third", b"colours")
    assert embedded == [2, 2, 2, 2, 2, 2, 2]
    assert found == [row["score"] for row in rows(tmp_path, task).values()]


def test_results_of_few_shot_prompts_are_not_written_over(tmp_path):
    contrastive_evaluation.check_folder(tmp_path / "new")
    (tmp_path / "predictions").mkdir()  # as experiments.evaluate leaves it
    with pytest.raises(UserError, match=r"holds results of experiments\.evaluate: give another"):
        contrastive_evaluation.check_folder(tmp_path)


def test_the_command_writes_results_of_a_saved_model(tmp_path):
    """Of random towers, with descriptions of one's own; and a wrong file of them is one line."""
    config = from_dict(TwoTowersConfig, contrastive.micro().model.to_dict())
    make = lambda rngs: TwoTowers(config, Execution(), rngs=rngs)  # noqa: E731
    two_towers.save(tmp_path, config, jax.device_get(params_lib.init(make, seed=0)))
    Tokenizer.byte_level(config.text.vocab_size - 2).to_file(tmp_path / stage_folder.TOKENIZER)
    path, file = drawn_benchmark.write(tmp_path, "label"), tmp_path / "templates.txt"
    ends = []
    for templates in ("a {}\n\nthe {}\n", "a photo\n"):
        file.write_text(templates)
        options = f"--model={tmp_path} --tasks=jsonl:{path} --out={tmp_path} --templates={file}"
        ends.append(
            subprocess.run(
                [sys.executable, "-m", "experiments.evaluate_contrastive", *options.split()],
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
        )
    good, bad = ends
    assert good.returncode == 0, good.stderr
    assert good.stdout == f"results: {tmp_path / 'results.md'}\n"
    (row,) = json.loads((tmp_path / "results.json").read_text())["results"]
    assert (row["templates"], row["num_queries"]) == (["a {}", "the {}"], 6)
    assert bad.returncode == 2
    assert bad.stderr == "error: template 'a photo' must hold {} once, as 'A photo of a {}.'\n"
