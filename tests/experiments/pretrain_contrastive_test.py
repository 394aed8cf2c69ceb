"""The contrastive stage's command: what it leaves, that it goes on exactly, and wrong recipes."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util
from PIL import Image

from experiments.configs import contrastive
from experiments.pretraining import contrastive_stage
from experiments.storage import given_model
from flamingo_jax import contrastive_model
from flamingo_jax.config import from_dict
from flamingo_jax.contrastive_config import TwoTowersConfig
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.two_towers import TwoTowers
from flamingo_jax.weights import frozen_parts, stage_folder
from flamingo_jax.weights.encoders import two_towers
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files
from tests.experiments.training_bench import Bench

MICRO = from_dict(TwoTowersConfig, contrastive.micro().model.to_dict())
OPTIONS = ("--config.steps=4", "--config.checkpoint_every=2", "--config.validate_every=2")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contrastive")
    recipes = "experiments/configs/contrastive.py"
    return Bench(folder, "experiments.pretrain_contrastive", recipes)


@pytest.fixture(scope="module")
def finished(bench):
    """The workdir of a run of four steps."""
    status, errors = bench.finish(bench.start("run", *OPTIONS))
    assert status == 0, errors
    return bench.folder / "run"


def test_a_run_leaves_model_report_and_rows(bench, finished):
    rows = bench.rows("run")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert np.isfinite([row["loss/pairs"], row["grad_norm"], row["inverse_temperature"]]).all()
        assert ("text_recall/pairs@1" in row) == (row["step"] in (2, 4))
    report = json.loads((finished / "report.json").read_text())
    assert report["steps"] == 4
    assert report["data"]["pairs"] == {"examples": 32, "skipped": 0, "skipped_by_reason": {}}
    recalls = report["retrieval"]["pairs"]
    assert recalls["picture_recall@5"] == rows[-1]["picture_recall/pairs@5"]
    assert 0 <= recalls["text_recall@1"] <= recalls["text_recall@10"] <= 1
    text = (finished / "report.md").read_text()
    assert "| pairs | 32 | 0 |" in text
    assert f"| pairs | {recalls['num_pairs']} | {recalls['text_recall@1']:.1%} |" in text
    assert recalls["num_pairs"] > 10  # else R@10 says nothing
    with Image.open(finished / "report.png") as picture:
        assert np.ptp(np.asarray(picture)) > 100
    assert (finished / "config.json").is_file()
    assert list(finished.glob("events.out.*"))


def test_a_checkpoint_is_a_model(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("FLAMINGO_JAX_CACHE", str(tmp_path))
    folder = given_model.folder("--model", f"{finished}/checkpoints/4")
    contrastive_model.load(folder)
    files = (folder / stage_folder.WEIGHTS, finished / "model" / stage_folder.WEIGHTS)
    assert len({path.read_bytes() for path in files}) == 1


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_weights(bench, finished):
    """From the checkpoint of step 2, as if what came after it had been lost."""
    again = bench.folder / "again"
    shutil.copytree(finished, again)
    shutil.rmtree(again / "checkpoints" / "4")
    shutil.rmtree(again / "model")
    status, errors = bench.finish(bench.start("again", *OPTIONS))
    assert status == 0, errors
    files = (folder / "model" / stage_folder.WEIGHTS for folder in (finished, again))
    want, found = map(safetensors.numpy.load_file, files)
    assert want.keys() == found.keys()
    for name in want:
        np.testing.assert_array_equal(want[name], found[name])


def test_a_flamingo_reads_the_encoder(finished):
    path = finished / "model"
    source = frozen_parts.Source("contrastive", str(path), checkpoint_files.sha256(path))
    encoder = frozen_parts.load_vision(source, FlamingoLike(MICRO.vision))["encoder"]
    saved = safetensors.numpy.load_file(path / stage_folder.WEIGHTS)
    flat = traverse_util.flatten_dict(encoder, sep="/")
    assert flat.keys() == {n.removeprefix("encoder/") for n in saved if n.startswith("encoder/")}
    for name, leaf in flat.items():
        np.testing.assert_array_equal(leaf, saved[f"encoder/{name}"])


def test_another_encoder_than_the_configs_is_refused(finished):
    want = contrastive.nfnet("f0", 288)
    with pytest.raises(BadWeightsFile, match=r"vision.kind='vit', the config asks for 'nfnet'"):
        two_towers.load_encoder(finished / "model", want)
    with pytest.raises(BadWeightsFile, match="name the model/ folder of a finished"):
        two_towers.load_encoder(finished, want)


class FlamingoLike:
    """The one field of a Flamingo's config that is asked for."""

    def __init__(self, vision):
        self.vision = vision


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.text.num_heads": 5}, "text.num_heads=5 does not divide text.width=32"),
        ({"model.stochastic_depth": True}, "stochastic_depth=True: vit has none"),
        ({"model.text.vocab_size": 100}, "bos_id=256 is not in the vocabulary of 98"),
        ({"data.train.pairs.kind": "text"}, "kind='text': the contrastive stage takes one picture"),
        ({"optim.warmup_steps": 10}, "optim.warmup_steps=10: use less than steps=10"),
        ({"data.train.pairs.num_tokens": 64}, "use up to model.text.max_length=32"),
        ({"data.train.pairs.num_frames": 8}, "one picture and one text a row, so use 1"),
        ({"steps": 0}, "steps=0: use 1 or more"),
        ({"data.train.pairs.batch_size": 9}, "batch_size=9 does not divide among 8 devices"),
        ({"tokenizer": "llm"}, "tokenizer='llm'"),
    ],
)
def test_a_recipe_that_does_not_hold_together_is_one_line(bench, finished, changes, message):
    config = contrastive.micro()
    config.data.dir = str(bench.folder / "cache" / "datasets")
    with config.unlocked():
        for key, value in changes.items():
            config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        check(config)


def check(config):
    """As the command does, in this order."""
    contrastive_stage.design(config)
    contrastive_stage.data(config)


def test_the_papers_recipe_has_the_papers_encoder():
    """435 million (Table 5)."""
    config = from_dict(TwoTowersConfig, contrastive.f6().model.to_dict())
    shapes = params_lib.abstract(lambda rngs: TwoTowers(config, Execution(), rngs=rngs))[1]
    assert params_lib.count(shapes["encoder"]) == pytest.approx(435.3e6, rel=1e-3)
