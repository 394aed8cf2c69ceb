r"""Trains a Flamingo from a recipe; the same command again goes on from the newest checkpoint.

    python -m experiments.train --config=experiments/configs/flamingo.py:demo --workdir=runs/demo

Any key of the recipe can be set, as in --config.steps=300 --config.optim.learning_rate=1e-4.
At the end the workdir holds the model (`model/`) and what the run did (`report.md`, `report.png`).
SIGTERM or Ctrl-C: finish the step, save, exit 143 or 130. With several processes (`launch.local`, a
TPU slice) all run this same program, each on its own devices and its own rows of the batch.
"""

import functools
import time
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from data_pipelines.streams.mixture import Mixture
from experiments import cli
from experiments.frozen import parts
from experiments.storage.workdir import Workdir
from experiments.training import (
    datasets,
    processes,
    run_loop,
    run_report,
    run_setup,
    run_start,
    starting_params,
)
from experiments.training.run_log import RunLog
from experiments.training.validation import Validation
from flamingo_jax import model_directory
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import reroll
from flamingo_jax.train import flops, optim, state
from flamingo_jax.train.step import make_train_step

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, as PATH.py:VARIANT.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; may be gs://BUCKET/FOLDER.")
_EMBED_FROZEN = flags.DEFINE_bool(
    "embed_frozen", False, "Write the frozen parts into the model too, not where they come from."
)
flags.mark_flags_as_required(["config", "workdir"])


def main() -> int:
    """Trains to `config.steps`, then writes model and report."""
    with Workdir.given("--workdir", _WORKDIR.value) as workdir:
        return train(_CONFIG.value, workdir)


def train(config: Any, workdir: Workdir) -> int:
    """The run that a recipe asks for; the exit status."""
    began = time.monotonic()
    with cli.user_input():
        processes.start()
        clock = run_start.clock(workdir, began)
        setup = run_setup.check(config)
        tokenizer = parts.tokenizer(setup.card, setup.init_from)
    card, mesh, execution = setup.card, setup.mesh, setup.execution
    run_start.open_for_all(workdir, clock)
    trainable, frozen, features = starting_params.make(config, setup, tokenizer)

    # State: fresh, or the newest checkpoint with its place in the data.
    optimizer = optim.make_optimizer(setup.optimizer)
    now = state.create(trainable, optimizer, config.seed, mesh)
    checkpoints, now, place = run_start.restore(config, workdir, now, card)
    share, num_shares = setup.share
    reading = {
        "preprocessing": None if features else card.config.vision.preprocessing,
        "features": features,
        "process_index": share,
        "process_count": num_shares,
    }
    with cli.user_input():
        data = Mixture(setup.streams, tokenizer, **reading, state=place)
    start = int(now.step)
    save = functools.partial(model_directory.save, card=card, tokenizer=tokenizer)
    run_start.note(config, workdir, start, functools.partial(save, params=frozen), card)
    compiler_options = dict(config.compiler_options.get(jax.default_backend(), {}))
    train_step = jax.jit(
        make_train_step(
            setup.graph,
            card.config,
            optimizer,
            datasets.weights(config),
            config.microbatches,
            join_datasets=config.join_datasets,
        ),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, now), None),
        compiler_options=compiler_options,
    )
    validation = Validation(
        setup.validation,
        tokenizer,
        setup.graph,
        mesh,
        every=config.validate_every,
        num_batches=config.validation_batches,
        reading=reading,
        compiler_options=compiler_options,
    )

    log = RunLog(
        workdir.folder,
        start,
        share=share,
        flops=flops.train_step(
            card.config,
            setup.streams,
            accumulate=config.accumulate,
            num_microbatches=config.microbatches,
        ),
        flops_per_frame=0.0 if config.data.cache_features else flops.per_frame(card.config),
        num_devices=mesh.size,
        compute_dtype=card.dtypes.compute,
    )
    stop = processes.StopRequest()
    now, stopped = run_loop.run(
        config,
        workdir,
        now,
        frozen,
        train_step,
        data,
        mesh=mesh,
        log=log,
        checkpoints=checkpoints,
        validation=validation,
        schedule=setup.optimizer.schedule(),
        profile_steps=setup.profile_steps,
        stop=stop,
        clock=clock,
    )
    if stopped:
        return 128 + stopped
    place = log.place(data)
    params = params_lib.merge(now.trainable, frozen)
    del now, frozen  # the report needs the room
    stop.release()
    whole, also = _EMBED_FROZEN.value, card.config.trained
    if not config.report.num_queries and not whole:
        params = model_directory.own_params(params, also)  # nobody needs the frozen ones
    params = params if execution.scan else reroll(params)
    saved = processes.to_host(params if whole else model_directory.own_params(params, also))
    if processes.is_first():
        save(workdir.folder / "model", params=saved, embed_frozen=whole)
    del saved
    report = run_report.make(config, card, params, mesh, tokenizer, features, place, clock)
    if processes.part():
        run_report.write(workdir, report, log.writers, config.steps)
    return 0


if __name__ == "__main__":
    cli.run(main)
