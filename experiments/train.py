r"""Trains a Flamingo from a recipe; the same command again goes on from the newest checkpoint.

    python -m experiments.train --config=experiments/configs/flamingo.py:demo --workdir=runs/demo

At the end the workdir holds the model (`model/`) and what the run did (`report.md`, `report.png`).
SIGTERM: finish the step, save, exit 143.
"""

import importlib.metadata
import json
import pathlib
import signal
import sys
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from data_pipelines.mixture import Mixture
from experiments import cli, datasets, feature_cache, parts, run_report
from experiments.progress import Progress
from experiments.tensorboard import TensorBoardWriter
from flamingo_jax import model_directory
from flamingo_jax.config import from_dict
from flamingo_jax.core import params as params_lib
from flamingo_jax.core import partition
from flamingo_jax.core.stack import Execution, reroll, unroll
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.train import flops, metrics, optim, state
from flamingo_jax.train.checkpoint import Checkpoints
from flamingo_jax.train.step import make_train_step
from flamingo_jax.weights import new_tokens

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, as PATH.py:VARIANT.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; made where it is missing.")
flags.mark_flags_as_required(["config", "workdir"])

SIGTERM_STATUS = 143
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow", "numpy")


def main() -> int:
    """Trains to `config.steps`, then writes model and report."""
    config, workdir = _CONFIG.value, pathlib.Path(_WORKDIR.value)
    clock = run_report.Clock.start(workdir)
    with cli.user_input():
        execution = from_dict(Execution, config.execution.to_dict(), "execution.")
        optim_config = from_dict(optim.OptimizerConfig, config.optim.to_dict(), "optim.")
        mesh = partition.make_mesh(**config.mesh)
        card = parts.model_card(config)
        datasets.prepare(config)
        streams = datasets.stream_configs(config)
        check_batches(streams, mesh)
    tokenizer = parts.tokenizer(card)
    workdir.mkdir(parents=True, exist_ok=True)
    write_config(workdir, config)

    # Parameters: frozen ones from their sources, trained ones fresh.
    def make(rngs):
        return Flamingo(card.config, execution, dtype=card.dtypes.compute, rngs=rngs)

    graph, shapes, axes = params_lib.abstract(make)
    frozen = model_directory.frozen_params(card)
    features = None
    if config.data.cache_features:
        features = open_features(config, card, frozen["vision"])
        frozen["vision"]["channels"] = features.channel_statistics()
    trainable = params_lib.init(make, config.seed, keep=params_lib.is_trainable)
    trainable["new_tokens"] = new_tokens.initialise(
        trainable["new_tokens"], frozen["language_model"], config.seed
    )
    frozen = frozen if execution.scan else unroll(frozen)
    trainable, frozen = params_lib.cast(trainable, frozen, card.dtypes)
    where = partition.shardings(axes, shapes, mesh)
    where_trainable, where_frozen = params_lib.split(where)
    trainable = jax.device_put(trainable, where_trainable)
    frozen = jax.device_put(frozen, where_frozen)

    # State: fresh, or the newest checkpoint with its place in the data.
    optimizer = optim.make_optimizer(optim_config)
    now = state.create(trainable, optimizer, config.seed, mesh)
    checkpoints = Checkpoints(workdir / "checkpoints", config.keep_checkpoints)
    place = None
    if checkpoints.latest_step is not None:
        now, place = checkpoints.restore(now)
    data = Mixture(
        streams,
        tokenizer,
        preprocessing=None if features else card.config.vision.preprocessing,
        features=features,
        state=place,
    )
    start = int(now.step)
    train_step = jax.jit(
        make_train_step(
            graph, card.config, optimizer, datasets.weights(config), accumulate=config.accumulate
        ),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, now), None),
    )
    step_flops = flops.train_step(card.config, streams)

    stop = StopRequest()
    writers = [metrics.JsonlWriter(workdir / metrics.FILE_NAME, start)]
    writers.append(TensorBoardWriter(workdir))
    schedule, batch_sharding = optim_config.schedule(), partition.batch_sharding(mesh)
    with jax.set_mesh(mesh), Progress(config.steps, initial=start) as progress:
        window = metrics.Window()
        for step in range(start + 1, config.steps + 1):
            with window.waiting():
                batches = next(data)
            window.count(batches)
            now, row = train_step(now, frozen, jax.device_put(batches, batch_sharding))
            if step % config.log_every == 0 or step in (start + 1, config.steps):
                row = {"step": step} | jax.device_get(row)  # waits for the step
                row |= {"lr": float(schedule(step - 1))}
                row |= window.close(flops=step_flops, num_devices=mesh.size)
                row |= {f"skipped/{k}": sum(v.values()) for k, v in data.skipped.items()}
                for writer in writers:
                    writer.write(row)
                progress.update(step, loss=float(row["loss"]))
                clock.save()
                run_report.check_finite(row)
            if stop.requested or step % config.checkpoint_every == 0 or step == config.steps:
                checkpoints.save(now, data.state())
            if stop.requested and step < config.steps:
                progress.say(f"SIGTERM: saved step {step}")
                checkpoints.close()
                return SIGTERM_STATUS
    checkpoints.close()
    stop.release()
    params = params_lib.merge(now.trainable, frozen)
    params = params if execution.scan else reroll(params)
    model_directory.save(workdir / "model", card, tokenizer, params)
    report = run_report.make(config, card, params, tokenizer, features, data, clock)
    run_report.write(workdir, report, writers)
    return 0


class StopRequest:
    """Set by SIGTERM; read between two steps, until it is released."""

    def __init__(self):
        self.requested = False
        self._before = signal.signal(signal.SIGTERM, self._request)

    def _request(self, *_: Any) -> None:
        self.requested = True

    def release(self) -> None:
        """SIGTERM ends the process again: training is over, and everything is saved."""
        signal.signal(signal.SIGTERM, self._before)


def check_batches(streams, mesh) -> None:
    """Every dataset's batch must divide among the devices that share it."""
    parts_of_batch = mesh.shape["data"] * mesh.shape["fsdp"]
    for stream in streams:
        if stream.batch_size % parts_of_batch:
            near = max(parts_of_batch, stream.batch_size // parts_of_batch * parts_of_batch)
            raise ValueError(
                f"data.train.{stream.name}.batch_size={stream.batch_size} does not divide among "
                f"{parts_of_batch} devices (data x fsdp): use {near}"
            )


def open_features(config, card, vision_params) -> feature_cache.FeatureCache:
    """Cached features of every picture the run reads, the held-out ones too."""
    folders = {}
    splits = [(d.path, d.split) for d in [*config.data.train.values(), config.data.heldout] if d]
    for path, split in splits:
        directory = datasets.folder(config, path)
        folders[directory] = "+".join(filter(None, [folders.get(directory), split]))
    root = datasets.data_dir(config)
    return feature_cache.open_or_build(card, {"encoder": vision_params["encoder"]}, folders, root)


def write_config(workdir: pathlib.Path, config) -> None:
    """`config.json`: the resolved recipe, package versions, command line."""
    values = {
        "config": config.to_dict(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "command": sys.argv,
    }
    (workdir / "config.json").write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main)
