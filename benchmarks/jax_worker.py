"""The worker that trains with this codebase, whatever the peer: `experiments.train`'s step."""

import importlib.metadata
import itertools
import pathlib
import sys

import jax

from benchmarks import exchange
from flamingo_jax.core import params as params_lib
from flamingo_jax.core import partition
from flamingo_jax.core.stack import reroll
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.train import optim, state
from flamingo_jax.train.step import make_train_step


def main(folder: pathlib.Path):
    """(facts, step); a step reads the next batches and waits for its loss."""
    setup, trainable, frozen, batches = exchange.read(folder)
    if setup.execution.scan:
        trainable, frozen = reroll(trainable), reroll(frozen)
    trainable, frozen = params_lib.cast(trainable, frozen, setup.dtypes)
    dtype = setup.dtypes.compute
    graph, _, _ = params_lib.abstract(
        lambda rngs: Flamingo(setup.config, setup.execution, dtype=dtype, rngs=rngs)
    )
    optimizer = optim.make_optimizer(setup.optim)
    now = state.create(trainable, optimizer, 0, partition.make_mesh(data=-1, fsdp=1, tensor=1))
    train_step = jax.jit(
        make_train_step(graph, setup.config, optimizer, setup.weights), donate_argnums=0
    )
    data = itertools.cycle(batches)

    def facts():
        return {
            "versions": {n: importlib.metadata.version(n) for n in ("jax", "jaxlib", "flax")},
            "trained": params_lib.count(trainable),
            "language_model": params_lib.count(frozen["language_model"]),
        }

    def step():
        nonlocal now
        batches = next(data)
        with exchange.timed() as times:
            now, row = train_step(now, frozen, jax.device_put(batches))
            jax.block_until_ready((now, row))
        return {**times, "loss": float(row["loss"]), "grad_norm": float(row["grad_norm"])}

    return facts, step


if __name__ == "__main__":
    exchange.serve(lambda: main(pathlib.Path(sys.argv[1])))
