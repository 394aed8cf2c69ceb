"""From a benchmark's files to a fine-tuned score: built, trained on, asked with the query alone."""

import functools
import json
import types

import jax
import pytest

from data_pipelines import build
from experiments import train
from experiments.configs import base, finetune_task
from experiments.evaluation import evaluation
from experiments.evaluation.settings import Settings
from experiments.storage.workdir import Workdir
from flamingo_jax import model_directory
from flamingo_jax.core import partition
from flamingo_jax.eval.tasks import jsonl
from flamingo_jax.train import metrics
from tests import drawn_model
from tests.experiments.evaluation import drawn_benchmark


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Of six drawn shapes and the question after their colour, for one device.

    The language model is trained along, since this one's weights are drawn: it has no words.
    """
    drawn_model.save(tmp_path / "model", drawn_benchmark.model_config())
    path = drawn_benchmark.write(tmp_path, "question", max_tokens=8)
    words = [f"--input=jsonl:{path}", f"--output={tmp_path}/data/task/1.0.0"]
    monkeypatch.setattr("sys.argv", ["build", "--source=benchmark", *words])
    build.main()
    monkeypatch.setattr(train, "_EMBED_FROZEN", types.SimpleNamespace(value=False))
    one = functools.partial(partition.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(partition, "make_mesh", one)
    c = finetune_task.get_config(str(tmp_path / "model"))
    c.model.trained = ("language_model", "vision")
    c.execution.update({"scan": False, "remat": "none"})
    c.data.dir = f"{tmp_path}/data"
    c.data.train = {"task": base.answers(path="task", num_tokens=48)}
    c.data.validation = {}
    c.steps = c.checkpoint_every = 120
    c.optim.update({"learning_rate": 1e-2, "warmup_steps": 20, "decay_steps": 80})
    return c


def test_a_model_writes_the_answers_that_it_was_trained_on_and_ends(tmp_path, recipe):
    with Workdir.given("--workdir", str(tmp_path / "run")) as workdir:
        assert train.train(recipe, workdir) == 0
    first, *_, last = metrics.read_rows(tmp_path / "run" / "metrics.jsonl")
    assert last["loss/task"] < 0.1 < first["loss/task"]
    assert last["lr"] == pytest.approx(1e-3)  # it has fallen once
    task = jsonl.read(tmp_path / "question.jsonl", "Output: {}")
    directory, out = tmp_path / "run" / "model", Workdir.given("--out", str(tmp_path / "scores"))
    asked = model_directory.load(directory), directory, [task], [0], Settings(zero_shot_texts=0)
    (row,) = evaluation.run(*asked, out)
    assert row["example_prompt"] == "<BOS><image>Question: which colour? Answer:"
    assert row["score"] == 100
    predictions = (tmp_path / "scores" / "predictions" / "question_0.jsonl").read_text()
    written = [json.loads(line)["written"] for line in predictions.splitlines()]
    assert written == [f" {color}" for color in drawn_benchmark.COLORS for _ in range(2)]
