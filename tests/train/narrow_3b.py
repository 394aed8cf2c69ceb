"""One update of Flamingo-3B at narrow widths; as a command, by each process of several.

Depths, and where gated blocks stand, are the recipe's: 24 layers, a gated block before each, a
resampler of six. The optimizer is linear in the gradient, so that a wrong one of any size shows.

    python -m launch.local --num_processes=4 -- python -m tests.train.narrow_3b OUT.npz 2 2 2
"""

import dataclasses
import pathlib
import sys

import jax
import numpy as np
import optax
from flax import traverse_util
from jax.sharding import Mesh

from experiments.configs import flamingo
from experiments.training import processes
from flamingo_jax.config import FlamingoConfig, from_dict
from flamingo_jax.core import hosts, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.train import state
from flamingo_jax.train.step import make_train_step
from tests import tiny_flamingo as tiny

BATCH = 8


def config() -> FlamingoConfig:
    """The recipe's architecture, its widths and vocabulary made small."""
    whole = from_dict(FlamingoConfig, flamingo.get_config("3b").model.to_dict(), "model.")
    heads = {"width": 32, "num_heads": 4, "head_dim": 8}
    lm = {**heads, "ffw_width": 64, "vocab_size": tiny.VOCAB, "max_length": 64}
    return dataclasses.replace(
        whole,
        language_model=dataclasses.replace(whole.language_model, **lm),
        vision=tiny.CONFIG.vision,
        resampler=dataclasses.replace(whole.resampler, **heads, num_latents=4),
        cross_attention=dataclasses.replace(whole.cross_attention, num_heads=4, head_dim=8),
    )


def params() -> tiny.Tree:
    """Drawn as a language model's are before training, with a standard deviation of 0.04.

    At 0.2, which suits a few layers, 24 of them make rounding errors grow past what is compared.
    """

    def calm(path, leaf):
        name = path[-1].key
        return leaf if name in ("scale", "std") or name.endswith("_gate") else np.asarray(leaf) / 5

    return jax.tree_util.tree_map_with_path(calm, tiny.random_params(config()))


def update(mesh: Mesh) -> tuple[state.TrainState, dict[str, jax.Array]]:
    """The state and the metrics after one step; each process brings its own rows."""
    graph, shapes, axes = tiny.abstract(config())
    where = partition.shardings(axes, shapes, mesh)
    placed = hosts.place(params(), where)
    trainable, frozen = params_lib.split(placed)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0, momentum=0.9))
    now = state.create(trainable, optimizer, 0, mesh)
    step = make_train_step(graph, config(), optimizer, {"pages": 1.0})
    index, count = hosts.batch_share(mesh)
    rows = slice(index * BATCH // count, (index + 1) * BATCH // count)
    mine = jax.tree.map(lambda leaf: leaf[rows], tiny.random_batch(batch_size=BATCH))
    out = (jax.tree.map(lambda leaf: leaf.sharding, now), None)
    with jax.set_mesh(mesh):
        return jax.jit(step, out_shardings=out)(
            now, frozen, hosts.place_rows({"pages": mine}, mesh)
        )


def flat(after: state.TrainState, row: dict) -> dict[str, np.ndarray]:
    """Trained parameters and metrics by name, whole, in process 0."""
    tree = traverse_util.flatten_dict(after.trainable, sep="/")
    return jax.tree.map(np.asarray, processes.to_host(tree | row))


def main() -> None:
    """Writes what `flat` gives."""
    processes.start()
    file, *sizes = sys.argv[1:]
    values = flat(*update(partition.make_mesh(**_axes(sizes))))
    if processes.part():
        partial = pathlib.Path(f"{file}.partial.npz")
        np.savez(partial, **values)
        partial.rename(file)


def _axes(sizes: list[str]) -> dict[str, int]:
    return dict(zip(("data", "fsdp", "tensor"), map(int, sizes), strict=True))


if __name__ == "__main__":
    with processes.ending_together():
        main()
