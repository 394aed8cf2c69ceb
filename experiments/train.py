r"""Trains a Flamingo from a recipe; the same command again goes on from the newest checkpoint.

    python -m experiments.train --config=experiments/configs/flamingo.py:demo --workdir=runs/demo

At the end the workdir holds the model (`model/`) and what the run did (`report.md`, `report.png`).
SIGTERM: finish the step, save, exit 143. With several processes (`launch.local`, a TPU slice) all
run this same program, each on its own devices and its own rows of the batch.
"""

import importlib.metadata
import pathlib
import sys

import jax
from absl import flags
from ml_collections import config_flags

from data_pipelines.mixture import Mixture
from data_pipelines.whole_files import write_json
from experiments import cli, datasets, frozen_features, parts, processes, run_report
from experiments.profiling import Profiler, parse_steps
from experiments.progress import Progress
from experiments.run_log import RunLog
from flamingo_jax import model_directory
from flamingo_jax.config import from_dict
from flamingo_jax.core import hosts, kernels, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution, reroll, unroll
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.train import flops, optim, state
from flamingo_jax.train.checkpoint import Checkpoints
from flamingo_jax.train.step import make_train_step
from flamingo_jax.weights import new_tokens

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, as PATH.py:VARIANT.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; made where it is missing.")
flags.mark_flags_as_required(["config", "workdir"])

SIGTERM_STATUS = 143
CONFIG_FILE = "config.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def main() -> int:
    """Trains to `config.steps`, then writes model and report."""
    config, workdir = _CONFIG.value, pathlib.Path(_WORKDIR.value)
    clock = run_report.Clock.start(workdir)
    with cli.user_input():
        processes.start()
        execution = from_dict(Execution, config.execution.to_dict(), "execution.")
        optim_config = from_dict(optim.OptimizerConfig, config.optim.to_dict(), "optim.")
        frozen_features.check(config)
        profile_steps = parse_steps(config.profile.steps)
        mesh = partition.make_mesh(**config.mesh)
        kernels.resolve(execution.attention, jax.default_backend())
        share, num_shares = hosts.batch_share(mesh)
        with processes.one_at_a_time(datasets.data_dir(config)):
            card = parts.model_card(config)
            datasets.prepare(config)
        datasets.check_heldout(config)
        streams = datasets.stream_configs(config)
        for stream in streams:
            partition.check_batch(f"data.train.{stream.name}", stream.batch_size, mesh)
    tokenizer = parts.tokenizer(card)
    workdir.mkdir(parents=True, exist_ok=True)
    if processes.is_first():
        write_config(workdir, config)
    processes.check_shared(workdir / CONFIG_FILE)

    # Parameters: frozen ones from their sources, trained ones fresh.
    def make(rngs):
        return Flamingo(card.config, execution, dtype=card.dtypes.compute, rngs=rngs)

    graph, shapes, axes = params_lib.abstract(make)
    frozen = model_directory.frozen_params(card)
    features = None
    if config.data.cache_features:
        with processes.one_at_a_time(datasets.data_dir(config)):
            features, frozen = frozen_features.prepare(config, card, frozen, tokenizer)
    where_trainable, where_frozen = params_lib.split(partition.shardings(axes, shapes, mesh))
    trainable = params_lib.init(make, config.seed, params_lib.is_trainable, where_trainable)
    trainable["new_tokens"] = new_tokens.initialise(
        trainable["new_tokens"], frozen["language_model"], config.seed
    )
    frozen = frozen if execution.scan else unroll(frozen)
    trainable = hosts.place(trainable, where_trainable, card.dtypes.trainable)
    frozen = hosts.place(frozen, where_frozen, card.dtypes.frozen)

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
        process_index=share,
        process_count=num_shares,
        state=place,
    )
    start = int(now.step)
    train_step = jax.jit(
        make_train_step(graph, card.config, optimizer, datasets.weights(config)),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, now), None),
        compiler_options=dict(config.compiler_options.get(jax.default_backend(), {})),
    )

    stop = processes.StopRequest()
    log = RunLog(
        workdir,
        start,
        share=share,
        flops=flops.train_step(
            card.config,
            streams,
            encode_media=not config.data.cache_features,
            accumulate=config.accumulate,
        ),
        num_devices=mesh.size,
        compute_dtype=card.dtypes.compute,
    )
    first = processes.is_first()
    profiler = Profiler(workdir, profile_steps if first else None)
    schedule = optim_config.schedule()
    saving = checkpoints.finished_on(cli.MENDABLE)
    with jax.set_mesh(mesh), saving, Progress(config.steps, initial=start, show=first) as progress:
        for step in range(start + 1, config.steps + 1):
            with profiler.around(step):
                with log.window.waiting():
                    batches = next(data) if config.accumulate else data.in_turn(step)
                log.count(batches)
                now, row = train_step(now, frozen, hosts.place_rows(batches, mesh))
            profiler.after(step, now)
            if step % config.log_every == 0 or step in (start + 1, config.steps):
                row = {"step": step} | jax.device_get(row)  # waits for the step
                row = log.write(row | {"lr": float(schedule(step - 1))}, data)
                progress.update(step, loss=float(row["loss"]))
                if first:
                    clock.save()
                run_report.check_finite(row)
            stopping = stop.after(step)
            if stopping or step % config.checkpoint_every == 0 or step == config.steps:
                checkpoints.save(now, log.place(data))
            if stopping and step < config.steps:
                progress.say(f"SIGTERM: saved step {step}")
                profiler.close()
                checkpoints.close()
                processes.part()
                return SIGTERM_STATUS
    profiler.close()
    checkpoints.close()
    place = log.place(data)
    params = params_lib.merge(now.trainable, frozen)
    if not config.report.num_queries:
        params = model_directory.own_params(params)  # no host needs the frozen ones whole
    params = processes.to_host(params)
    del now, frozen  # the report needs the room
    last = processes.part()
    stop.release()
    if not last:
        return 0
    params = params if execution.scan else reroll(params)
    model_directory.save(workdir / "model", card, tokenizer, params)
    report = run_report.make(config, card, params, tokenizer, features, place, clock)
    run_report.write(workdir, report, log.writers)
    return 0


def write_config(workdir: pathlib.Path, config) -> None:
    """`config.json`: the resolved recipe, package versions, command line."""
    import tensorflow as tf  # not above: data_pipelines says first how quiet it is to be

    values = {
        "config": config.to_dict(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
        | {"tensorflow": tf.__version__},  # of whichever of its packages
        "command": sys.argv,
    }
    write_json(workdir / CONFIG_FILE, values)


if __name__ == "__main__":
    cli.run(main)
