r"""Trains a vision encoder with a text tower, contrastively: the stage before Flamingo's own.

    python -m experiments.pretrain_contrastive \
        --config=experiments/configs/contrastive.py:micro --workdir=runs/towers

The same command again goes on from the newest checkpoint. At the end `model/` holds both towers,
and a Flamingo takes the encoder with --config.frozen.vision=contrastive:/path/to/runs/towers/model.
"""

import pathlib
import shutil

import jax
from absl import flags
from ml_collections import config_flags

from data_pipelines.mixture import Mixture
from experiments import (
    cli,
    contrastive_report,
    contrastive_setup,
    datasets,
    processes,
    run_loop,
    run_start,
)
from experiments.retrieval import Retrieval
from experiments.run_log import RunLog
from experiments.run_report import Clock
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import reroll
from flamingo_jax.train import contrastive_flops, state
from flamingo_jax.train.contrastive_step import make_train_step
from flamingo_jax.weights import two_towers

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, as PATH.py:VARIANT.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; made where it is missing.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> int:
    """Trains to `config.steps`, then writes both towers and the report."""
    config, workdir = _CONFIG.value, cli.local_path("--workdir", _WORKDIR.value)
    if config.data.dir is not None:
        cli.local_path("data.dir", config.data.dir)
    with cli.user_input():
        clock = Clock.start(workdir)
        processes.start()
        setup = contrastive_setup.check(config)
    mesh = setup.mesh
    workdir.mkdir(parents=True, exist_ok=True)
    if processes.is_first():
        clock.save()
    processes.check_shared(clock.path)
    params = params_lib.init(setup.make, config.seed, where=setup.where)
    now = state.create(params, setup.optimizer, config.seed, mesh)
    del params
    checkpoints, now, place = run_start.restore(config, workdir, now)
    share, num_shares = setup.share
    reading = {
        "preprocessing": setup.towers.vision.preprocessing,
        "process_index": share,
        "process_count": num_shares,
    }
    with cli.user_input():
        data = Mixture(setup.streams, setup.tokenizer, **reading, state=place)
    start = int(now.step)
    run_start.note(config, workdir, start)
    train_step = jax.jit(
        make_train_step(setup.graph, setup.optimizer, datasets.weights(config)),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, now), None),
        compiler_options=dict(config.compiler_options.get(jax.default_backend(), {})),
    )
    retrieval = Retrieval(
        setup.validation,
        setup.tokenizer,
        setup.graph,
        mesh,
        every=config.validate_every,
        num_batches=config.validation_batches,
        reading=reading,
    )
    log = RunLog(
        workdir,
        start,
        share=share,
        flops=contrastive_flops.texts(setup.towers, setup.streams),
        flops_per_frame=contrastive_flops.per_picture(setup.towers.vision),
        num_devices=mesh.size,
        compute_dtype=setup.compute_dtype,
    )
    stop = processes.StopRequest()
    now, stopped = run_loop.run(
        config,
        workdir,
        now,
        {},  # nothing is frozen
        train_step,
        data,
        mesh=mesh,
        log=log,
        checkpoints=checkpoints,
        validation=retrieval,
        schedule=setup.schedule,
        profile_steps=setup.profile_steps,
        stop=stop,
        clock=clock,
    )
    if stopped:
        return 128 + stopped
    place = log.place(data)
    params = processes.to_host(now.trainable)
    last = processes.part()
    stop.release()
    if not last:
        return 0
    _save(workdir / "model", setup, params)
    for writer in log.writers:
        writer.close()
    contrastive_report.write(workdir, config.variant, place, clock)
    print(f"model: {workdir / 'model'}\nreport: {workdir / 'report.md'}")
    return 0


def _save(directory: pathlib.Path, setup: contrastive_setup.Setup, params) -> None:
    """Whole or not at all, in the place of an older one."""
    partial = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    params = params if setup.execution.scan else reroll(params)
    two_towers.save(partial, setup.towers, params)
    setup.tokenizer.to_file(partial / "tokenizer")
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)


if __name__ == "__main__":
    cli.run(main)
