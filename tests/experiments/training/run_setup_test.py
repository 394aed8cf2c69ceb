"""What a user may have wrong in a recipe is said before training, with the key to set."""

import os
import signal

import numpy as np
import pytest

from experiments import cli
from experiments.configs import flamingo
from experiments.training import processes, run_log, run_setup


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_every": 0}, "^log_every=0: use 1 or more"),
        ({"checkpoint_every": 0}, "^checkpoint_every=0: use 1"),
        ({"model.trained": ("lm",)}, r"^model.trained\[0\]='lm': use one of \['language_model', "),
        ({"model.trained": ("vision", "vision")}, "^model.trained=.*: name each part once$"),
        (
            {"model.trained": ("vision",), "data.cache_features": True},
            "^data.cache_features=True .* set it to False, or leave 'vision' out of model.trained$",
        ),
        ({"microbatches": 0}, "^microbatches=0: use 1 or more"),
        ({"stall_minutes": -1}, "^stall_minutes=-1: use 0 or more"),
        ({"optim.clip_norm": 0.0}, "^optim.clip_norm=0.0: use more than 0; inf clips nothing"),
        ({"dtypes.compute": "bfloat"}, "^dtypes.compute='bfloat': use one of .*'bfloat16'"),
        ({"model.resampler.num_heads": 0}, "^resampler.num_heads=0: use 1 or more"),
        (
            {"model.language_model.positions": "learned", "model.language_model.max_length": 64},
            "^data.train.pages.num_tokens=96: .* learned positions end at 64: use that or fewer",
        ),
        (
            {"microbatches": 3},
            r"^data.train.pages.batch_size=8 does not divide among 8 devices \(slice x data x "
            r"fsdp\) x 3 microbatches: use 24",
        ),
        ({"keep_every": -5}, "^keep_every=-5: use 0 or more"),
        ({"keep_every": 7}, "^keep_every=7 .* checkpoint_every=5 steps: use .* such as 10$"),
        ({"validate_every": -1}, "^validate_every=-1: use 0 or more"),
        ({"validation_batches": 0}, "^validation_batches=0: use 1 or more"),
        (
            {"validation_batches": 2},
            "^data.validation.pairs: validation_batches=2 of 16 .* 'heldout' .* has 24: use 1 or",
        ),
        ({"data.validation.pairs.batch_size": 32}, "of 32 .* has 24: use smaller batches"),
        (
            {"data.validation.pairs.batch_size": 12},
            "^data.validation.pairs.batch_size=12: .* there are 8 devices .*: use 16$",
        ),
        (
            {"data.validation.pairs.path": "x"},
            "^data.validation.pairs.path='x': no TFDS dataset in",
        ),
        ({"data.train.pairs.path": "x"}, "^data.train.pairs.path='x': no TFDS dataset in"),
        ({"data.train.pairs.weight": float("nan")}, "^data.train.pairs.weight=nan: use 0 or more"),
        ({"data.train.pairs.weight": -1.0}, "^data.train.pairs.weight=-1.0: use 0 or more"),
        ({"data.heldout.path": "x"}, "^data.heldout.path='x': no TFDS dataset in"),
        ({"data.validation.pairs.split": "x"}, "^data.validation.pairs.split: no split 'x' in"),
        ({"report.num_candidates": 1}, "^report.num_candidates=1: use 2"),
        ({"report.shots": (0, -4)}, r"^report.shots=\(0, -4\): use 0"),
        ({"report.num_queries": 1}, "^report.num_queries=1: use 2 or more"),
        ({"report.num_captions": 1}, "^report.num_captions=1: use 2"),
        ({"report.num_support": -1}, "^report.num_support=-1: use 0"),
        ({"report.num_support": 3}, "^report.num_support=3: report.shots asks for 4 examples"),
        ({"report.shots": (), "report.num_support": 1}, "report.shots asks for 2 examples"),
        ({"mesh.tensor": 8, "mesh.data": 1}, "(?s)tensor.*8"),
        ({"caption_template": "foo"}, r"template 'foo' must hold \{\} once"),
        ({"data.heldout.path": ""}, "^report.num_queries=8 asks about held-out pairs: name"),
        ({"data.heldout.split": "test"}, "^data.heldout.split: no split 'test' in .*'heldout'"),
        ({"data.heldout.support": "test"}, "^data.heldout.support: no split 'test' in .*'train'"),
        ({"data.heldout.support": "train[:3]"}, r"^report.shots=4: split 'train\[:3\]' .* has 3"),
        ({"data.heldout.support": "heldout", "report.shots": (24,)}, "^report.shots=24: .* has 23"),
        ({"data.train.pairs.split": "nosuch"}, "^data.train.pairs.split: no split 'nosuch' in"),
        ({"report.num_candidates": 1000}, "^report.num_candidates=1000: .* has 24: use no more"),
        ({"report.shots": (0, 1000)}, "^report.shots=1000: .* has 72: use no more"),
    ],
)
def test_what_does_not_hold_together_is_said_before_training(data_dir, changes, message):
    recipe = flamingo.get_config("micro")
    recipe.data.dir = data_dir
    recipe.data.validation.pairs.batch_size, recipe.validation_batches = 16, 1
    recipe.update_from_flattened_dict({"mesh.data": 1, "mesh.fsdp": -1} | changes)
    recipe.data.train.pages.batch_size = recipe.data.train.pairs.batch_size = 8
    with pytest.raises(ValueError, match=message):
        run_setup.check(recipe)


def test_a_checkpoint_behind_the_last_step_is_named():
    run_setup.check_steps(14, 14)
    with pytest.raises(ValueError, match=r"^steps=5: the newest checkpoint is of step 14: ask for"):
        run_setup.check_steps(5, 14)


@pytest.mark.parametrize("value", ["", "gs://bucket/run"])
def test_what_is_no_folder_is_refused(value):
    """An empty one would fill the current folder."""
    with pytest.raises(cli.UserError, match=r"^--out"):
        cli.local_path("--out", value)


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_numbers_that_are_none_end_a_run_before_they_are_saved(name):
    row = {"step": 3, "loss": np.float32(1), "grad_norm": np.float32(1)}
    run_log.check_finite(row)
    with pytest.raises(cli.UserError, match=f"^step 3: {name} is nan: lower"):
        run_log.check_finite(row | {name: np.float32("nan")})


def test_ctrl_c_saves_first_and_a_second_one_ends_at_once(capsys):
    stop = processes.StopRequest()
    try:
        assert stop.after(1) is None
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.after(2) == signal.SIGINT
        assert "press again to end at once" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        stop.release()
