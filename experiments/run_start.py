"""Where a run begins: at its newest checkpoint, or afresh."""

import pathlib
import sys
from typing import Any

from experiments import cli, processes, run_config, run_setup
from flamingo_jax.train.checkpoint import Checkpoints
from flamingo_jax.train.state import TrainState

Json = dict[str, Any]


def restore(
    config: Any, workdir: pathlib.Path, fresh: TrainState
) -> tuple[Checkpoints, TrainState, Json | None]:
    """The run's checkpoints, the state to go on from, and its place in the data, if it has one.

    UserError where the recipe asks for fewer steps than are done.
    """
    kept = config.keep_checkpoints, config.keep_every
    checkpoints = Checkpoints(workdir / "checkpoints", *kept)
    if checkpoints.latest_step is None:
        return checkpoints, fresh, None
    with cli.user_input():
        run_setup.check_steps(config.steps, checkpoints.latest_step)
    return checkpoints, *checkpoints.restore(fresh)


def note(config: Any, workdir: pathlib.Path, start: int) -> None:
    """Writes config.json, unless all steps are done already and other settings mean nothing."""
    if not processes.is_first():
        return
    if start == config.steps:
        print(f"{workdir} has all its {start} steps: only the report is made", file=sys.stderr)
    else:
        run_config.write(workdir, config)
