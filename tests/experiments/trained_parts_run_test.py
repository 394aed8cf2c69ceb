"""A run that trains a frozen part along: stopped and gone on with, finished, opened, trained on.

The ablations' rows on the micro recipe, each part random.
"""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

import flamingo_jax
from experiments import cli
from experiments.published import export_formats
from flamingo_jax import model_directory, same_model
from tests.experiments.training_bench import Bench

pytestmark = pytest.mark.slow
RECIPE = """
from experiments.configs import ablations, flamingo


def get_config(row):
    c = flamingo.micro()
    ablations.ROWS[row](c)
    c.frozen = {"language_model": "random", "vision": "random"}
    c.steps, c.checkpoint_every = 6, 2
    c.report.num_queries = 0
    del c.data.train.pages  # less to compile, as are fewer layers
    c.model.language_model.num_layers, c.model.cross_attention.every = 2, 1
    if "massivetext" in c.data.train:
        texts = {"path": "synthetic_pages", "batch_size": 4, "num_tokens": 64}
        c.data.train.massivetext.update(texts)
        c.data.validation.massivetext = c.data.train.massivetext.copy_and_resolve_references()
    return c
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "recipe.py").write_text(RECIPE)
    return Bench(folder, recipes=str(folder / "recipe.py"))


@pytest.fixture(scope="module")
def whole(bench):
    """The folder of a run that trains the language model beside texts."""
    status, errors = bench.finish(bench.start("whole", variant="co_training_random"))
    assert status == 0, errors
    return bench.folder / "whole"


def weights(workdir):
    return safetensors.numpy.load_file(workdir / "model" / "weights.safetensors")


def test_the_loss_falls_and_texts_are_validated_by_themselves(bench, whole):
    rows = bench.rows("whole")
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["loss/massivetext"] < rows[0]["loss/massivetext"]
    last = rows[-1]
    assert last["validation/massivetext"] > 0
    assert "validation_shuffled/massivetext" not in last
    assert last["validation_shuffled/pairs"] > 0
    assert "validation of massivetext" in (whole / "report.md").read_text()


def test_a_run_in_two_parts_ends_as_one_does(bench, whole):
    """From the checkpoint of step 4, as if what came after it had been lost."""
    shutil.copytree(whole, bench.folder / "parts")
    shutil.rmtree(bench.folder / "parts" / "checkpoints" / "6")
    shutil.rmtree(bench.folder / "parts" / "model")
    status, errors = bench.finish(bench.start("parts", variant="co_training_random"))
    assert status == 0, errors
    found, want = weights(bench.folder / "parts"), weights(whole)
    assert found.keys() == want.keys()
    for name, leaf in want.items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)


def test_a_finished_model_holds_what_was_trained_and_is_opened(whole):
    held = weights(whole)
    assert "language_model/embedding" in held
    assert not any(name.startswith("vision/") for name in held)
    card = model_directory.read_card(whole)
    assert card.config.trained == ("language_model",)
    model = flamingo_jax.load(whole)
    found = jax.tree.leaves(model.params["language_model"]["embedding"])[0]
    np.testing.assert_array_equal(found, held["language_model/embedding"])
    began = model_directory.frozen_params(card)
    assert (np.asarray(found) != np.asarray(began["language_model"]["embedding"])).any()
    np.testing.assert_array_equal(  # as its source has it
        jax.tree.leaves(model.params["vision"])[0], jax.tree.leaves(began["vision"])[0]
    )


def test_only_safetensors_has_a_place_for_it(whole, tmp_path):
    card = model_directory.read_card(whole)
    for export in (export_formats.to_open_flamingo, export_formats.to_idefics):
        with pytest.raises(cli.UserError, match=r"language_model was trained along.* safetensors$"):
            export(whole, card, tmp_path / "out")
    export_formats.to_safetensors(whole, card, tmp_path / "out")
    there = flamingo_jax.load(tmp_path / "out").params
    jax.tree.map(np.testing.assert_array_equal, there, flamingo_jax.load(whole).params)


def test_training_on_begins_with_it_and_may_train_more_but_not_less(bench, whole):
    on = ["--config.optim.learning_rate=0.0", f"--config.init_from={whole}", "--config.steps=1"]
    on.append("--config.validate_every=0")
    status, errors = bench.finish(
        bench.start(
            "more", *on, "--config.model.trained=('language_model', 'vision')",
            variant="co_training_random",
        )
    )  # fmt: skip
    assert status == 0, errors
    found, want = weights(bench.folder / "more"), weights(whole)
    for name, leaf in want.items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)
    assert {name.split("/")[0] for name in found.keys() - want.keys()} == {"vision"}
    card = model_directory.read_card(whole)
    less = dataclasses.replace(card, config=dataclasses.replace(card.config, trained=()))
    with pytest.raises(
        ValueError, match=r"has trained \('language_model',\) along, the config asks"
    ):
        same_model.check(whole, less)
