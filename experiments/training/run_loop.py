"""The loop of a training run: read, step, log, validate, save, stop. The same for every objective.

What a step is, and what is measured beside it, the commands say: `experiments.train` and
`experiments.pretrain_contrastive`.
"""

import signal
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import optax
from jax.sharding import Mesh

from data_pipelines.streams.mixture import Mixture
from experiments import cli
from experiments.storage.workdir import Workdir
from experiments.training import processes
from experiments.training.profiling import Profiler
from experiments.training.progress import Progress
from experiments.training.run_log import RunLog, check_finite
from experiments.training.run_report import Clock
from experiments.training.stall import StallWatch
from flamingo_jax.batch import Batch
from flamingo_jax.core import hosts
from flamingo_jax.train import metrics
from flamingo_jax.train.checkpoint import Checkpoints
from flamingo_jax.train.state import TrainState

Tree = Any
Step = Callable[[TrainState, Tree, Mapping[str, Batch]], tuple[TrainState, metrics.Row]]


class Measure(Protocol):
    """What is measured while a run trains, such as a held-out loss."""

    def is_due(self, step: int, last_step: int) -> bool:
        """Whether this step is one to measure after."""

    def measure(self, state: TrainState, frozen: Tree, say: Callable[[str], None]) -> metrics.Row:
        """Entries of the step's row; all processes call it."""


def run(
    config: Any,
    workdir: Workdir,
    now: TrainState,
    frozen: Tree,
    train_step: Step,
    data: Mixture,
    *,
    mesh: Mesh,
    log: RunLog,
    checkpoints: Checkpoints,
    validation: Measure,
    schedule: optax.Schedule,
    profile_steps: tuple[int, int] | None,
    stop: processes.StopRequest,
    clock: Clock,
) -> tuple[TrainState, signal.Signals | None]:
    """The state after `config.steps`; or earlier, with the signal that stopped it, all saved."""
    first, start = processes.is_first(), int(now.step)
    profiler = Profiler(workdir.folder, profile_steps if first else None)
    losses = {}  # the newest of each dataset, as round-robin visits one a step
    saving = checkpoints.finished_on(cli.MENDABLE)
    watch = StallWatch(config.stall_minutes, processes.name())
    progress = Progress(config.steps, initial=start, show=first)
    with jax.set_mesh(mesh), saving, watch, progress:
        if start < config.steps:  # minutes of silence for a large model
            progress.say(f"going on after step {start}: compiling" if start else "compiling")
        for step in range(start + 1, config.steps + 1):
            with profiler.around(step):
                with log.window.waiting():
                    batches = next(data) if config.accumulate else data.in_turn(step)
                log.count(batches)
                now, row = train_step(now, frozen, hosts.place_rows(batches, mesh))
                losses |= {key: value for key, value in row.items() if key.startswith("loss/")}
            profiler.after(step, now)
            validating = validation.is_due(step, config.steps)
            if step % config.log_every == 0 or step in (start + 1, config.steps) or validating:
                row = {"step": step} | jax.device_get(losses | row)  # waits for the step
                if validating:
                    with log.paused():
                        row |= validation.measure(now, frozen, progress.say)
                row = log.write(row | {"lr": float(schedule(step - 1))}, data)
                progress.update(step, loss=float(row["loss"]))
                if first:
                    clock.save()
                check_finite(row)
            stopping = stop.after(step)
            if stopping or step % config.checkpoint_every == 0 or step == config.steps:
                check_finite({"step": step} | row)
                checkpoints.save(now, log.place(data), after=workdir.keep())
            watch.moved()
            if stopping and step < config.steps:
                progress.say(f"{stopping.name}: saved step {step}")
                profiler.close()
                checkpoints.close()
                processes.part()
                return now, stopping
    profiler.close()
    checkpoints.close()
    return now, None
