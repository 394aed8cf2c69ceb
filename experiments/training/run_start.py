"""Where a run begins: at its newest checkpoint, or afresh."""

import pathlib
import sys
from collections.abc import Callable
from typing import Any

from experiments import cli
from experiments.storage import checkpoint_model
from experiments.storage.workdir import Workdir
from experiments.training import processes, run_config, run_setup
from experiments.training.run_report import CLOCK_FILE, Clock
from flamingo_jax import same_model
from flamingo_jax.model_directory import ModelCard
from flamingo_jax.train import metrics
from flamingo_jax.train.checkpoint import Checkpoints
from flamingo_jax.train.state import TrainState

Json = dict[str, Any]


def clock(workdir: Workdir, began: float) -> Clock:
    """The run's, which goes on from an earlier process's; all processes call it.

    ValueError where its file is damaged, UserError for a bucket that cannot be read.
    """
    workdir.bring((metrics.FILE_NAME, CLOCK_FILE))
    return Clock.start(workdir.folder, began)


def open_for_all(workdir: Workdir, clock: Clock) -> None:
    """Makes the folder, this run's alone, and the same one for all processes, who call it.

    UserError where another run is in it, OSError where it is not the same one.
    """
    workdir.hold()
    if processes.is_first():
        clock.save()
    workdir.share(CLOCK_FILE)


def restore(
    config: Any, workdir: Workdir, fresh: TrainState, model: Any
) -> tuple[Checkpoints, TrainState, Json | None]:
    """The run's checkpoints, the state to go on from, and its place in the data, if it has one.

    `model` is what the recipe trains: a Flamingo's card, or the config of one of its parts.
    UserError where fewer steps are asked for than are done, or another model than the run began
    with, or other frozen parts around it, which no checkpoint holds. CheckpointError where none can
    be read, or the disk of a run that begins has no room for one.
    """
    kept = config.keep_checkpoints, config.keep_every
    checkpoints = Checkpoints(workdir.checkpoints, *kept)
    if checkpoints.latest_step is None:
        checkpoints.check_room(fresh)
        return checkpoints, fresh, None
    with cli.user_input():
        run_setup.check_steps(config.steps, checkpoints.latest_step)
        _check_model(workdir, model)
    return checkpoints, *checkpoints.restore(fresh)


def _check_model(workdir: Workdir, model: Any) -> None:
    """ValueError where the run trained another model so far, which may have the same shapes."""
    before = run_config.read_model(workdir.shared, type(model))
    if before and (other := same_model.difference(before, model)):
        key, own, asked = other
        raise ValueError(
            f"{workdir} has trained a model of {key}={own} so far, the config asks for {asked}: "
            "give it as it was, or another workdir"
        )


def note(
    config: Any,
    workdir: Workdir,
    start: int,
    save_untrained: Callable[[pathlib.Path], None],
    card: ModelCard | None = None,
) -> None:
    """Writes config.json and the folder that `save_untrained` does, see `checkpoint_model`.

    Neither where all steps are done already and other settings mean nothing.
    """
    if not processes.is_first():
        return
    if start == config.steps:
        print(f"{workdir} has all its {start} steps: only the report is made", file=sys.stderr)
    else:
        run_config.write(workdir.folder, config, card)
        save_untrained(workdir.folder / checkpoint_model.UNTRAINED)
