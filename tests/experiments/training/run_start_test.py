"""A run goes on with the model it began with, whatever shapes another would have."""

import json
import time

import pytest

from experiments.cli import UserError
from experiments.configs import contrastive, flamingo, language_model
from experiments.frozen import parts
from experiments.pretraining.contrastive_stage import towers
from experiments.pretraining.language_model_stage import model as of_language
from experiments.storage.workdir import Workdir
from experiments.training import run_config, run_start
from flamingo_jax.model_directory import ModelCard


class Kept:
    """Checkpoints that fit whatever they are asked for."""

    latest_step = 4

    def __init__(self, *_):
        pass

    def restore(self, fresh):
        return fresh, {}


@pytest.fixture
def goes_on(monkeypatch, tmp_path):
    """With a recipe's changes, in a workdir where `micro` has run."""
    monkeypatch.setattr(run_start, "Checkpoints", Kept)
    recipe, card = _micro()
    run_config.write(tmp_path, recipe, card)
    workdir = Workdir.given("--workdir", str(tmp_path))

    def go_on(**changes):
        return run_start.restore(recipe, workdir, "fresh", _micro(**changes)[1])[1]

    return go_on


def _micro(**changes) -> tuple[object, ModelCard]:
    recipe = flamingo.get_config("micro")
    recipe.update_from_flattened_dict(changes)
    return recipe, parts.model_card(recipe)


def test_what_is_no_matter_of_the_parameters_may_change(goes_on):
    assert goes_on() == "fresh"
    assert goes_on(caption_template="A {}", steps=20) == "fresh"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.cross_attention.activation": "relu"},
            "model.cross_attention.activation=squared_relu so far, the config asks for relu: give",
        ),
        ({"seed": 7}, "language_model.seed=0 so far, the config asks for 7: give"),
    ],
)
def test_another_model_of_the_same_shapes_is_refused(goes_on, changes, message):
    with pytest.raises(UserError, match=message):
        goes_on(**changes)


@pytest.mark.parametrize(
    ("micro", "model", "changes", "message"),
    [
        (language_model.micro, of_language, {"model.activation": "relu"}, "activation=silu so far"),
        (contrastive.micro, towers, {"model.vision.preprocessing.fit": "crop"}, "fit=pad so far"),
    ],
)
def test_so_do_the_stages_before(monkeypatch, tmp_path, micro, model, changes, message):
    monkeypatch.setattr(run_start, "Checkpoints", Kept)
    workdir, recipe = Workdir.given("--workdir", str(tmp_path)), micro()
    run_config.write(tmp_path, recipe)
    recipe.update_from_flattened_dict({"steps": 20, "optim.learning_rate": 1e-4})
    assert run_start.restore(recipe, workdir, "fresh", model(recipe))[1] == "fresh"
    recipe.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        run_start.restore(recipe, workdir, "fresh", model(recipe))


def test_a_config_that_says_nothing_of_a_model_or_nonsense(goes_on, tmp_path):
    file = tmp_path / run_config.CONFIG_FILE
    older = {k: v for k, v in json.loads(file.read_text()).items() if k != "model"}
    file.write_text(json.dumps(older))
    assert goes_on(seed=7) == "fresh"
    for nonsense in ('{"model": {"vision": 3}}', '{"model'):
        file.write_text(nonsense)
        with pytest.raises(UserError, match=r"config\.json cannot be read .*: mend it, or delete"):
            goes_on()


def test_a_workdir_is_one_runs_alone_until_it_ends(tmp_path):
    place = str(tmp_path / "new" / "run")

    def begin(seconds: float) -> None:
        with Workdir.given("--workdir", place) as workdir:
            run_start.open_for_all(workdir, run_start.clock(workdir, time.monotonic() - seconds))

    with Workdir.given("--workdir", place) as workdir:
        run_start.open_for_all(workdir, run_start.clock(workdir, time.monotonic()))
        kept = (workdir.folder / "clock.json").read_text()
        with pytest.raises(UserError, match=r"another process trains in .*/new/run: stop it or"):
            begin(100)
        assert (workdir.folder / "clock.json").read_text() == kept
    begin(100)
    assert json.loads((workdir.folder / "clock.json").read_text())["wall_s"] >= 100
