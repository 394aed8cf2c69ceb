"""One update of both towers: on a mesh as on one device, datasets accumulated, bad rows ignored."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.configs import contrastive
from flamingo_jax.batch import Batch
from flamingo_jax.config import from_dict
from flamingo_jax.contrastive_config import TwoTowersConfig
from flamingo_jax.core import hosts, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.two_towers import TwoTowers
from flamingo_jax.train import state
from flamingo_jax.train.contrastive_step import make_train_step

CONFIG = from_dict(TwoTowersConfig, contrastive.micro().model.to_dict())
WEIGHTS = {"a": 1.0, "b": 0.5}


def batch(seed: int, rows: int) -> Batch:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 250, (rows, 12)).astype(np.int32)
    length = rng.integers(4, 13, (rows, 1))
    mask = np.arange(12) < length
    media = rng.integers(0, 256, (rows, 1, 1, 32, 32, 3)).astype(np.uint8)
    return Batch(tokens, mask, mask, mask.astype(np.int32), media, np.ones((rows, 1, 1), bool))


@pytest.fixture(scope="module")
def stepped():
    """What one update of plain descent makes of batches, on a mesh of these sizes."""

    def make(rngs):
        return TwoTowers(CONFIG, Execution(), rngs=rngs)

    graph, shapes, axes = params_lib.abstract(make)
    params = jax.tree.map(np.asarray, params_lib.init(make, 0))
    optimizer = optax.sgd(1.0)
    step = jax.jit(make_train_step(graph, optimizer, WEIGHTS))

    def run(batches, devices=1, **sizes):
        mesh = partition.make_mesh(**sizes, devices=jax.devices()[:devices])
        placed = hosts.place(params, partition.shardings(axes, shapes, mesh))
        with jax.set_mesh(mesh):
            begin = state.create(placed, optimizer, 0, mesh)
            after, row = step(begin, {}, hosts.place_rows(batches, mesh))
        return jax.device_get((after.trainable, row))

    return run


def test_a_mesh_changes_nothing(stepped):
    batches = {"a": batch(0, 8), "b": batch(1, 8)}
    alone, row = stepped(batches)
    cut, cut_row = stepped(batches, 8, data=2, fsdp=2, tensor=2)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(cut), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for name in row:
        np.testing.assert_allclose(row[name], cut_row[name], rtol=1e-4)


def test_losses_are_added_by_weight_and_rows_without_a_picture_ignored(stepped):
    whole = {"a": batch(0, 8), "b": batch(1, 8)}
    _, row = stepped(whole)
    np.testing.assert_allclose(row["loss"], row["loss/a"] + 0.5 * row["loss/b"], rtol=1e-6)
    mask = whole["a"].media_mask.copy()
    mask[3] = False
    other = whole["a"].media.copy()
    other[3] = 255 - other[3]
    seen = {**whole, "a": whole["a"]._replace(media_mask=mask)}
    _, left_out = stepped(seen)
    _, exchanged = stepped({**whole, "a": seen["a"]._replace(media=other)})
    assert left_out["loss/a"] == exchanged["loss/a"] != row["loss/a"]
    assert left_out["loss/b"] == row["loss/b"]


def test_all_of_both_towers_learns(stepped):
    """Every parameter has a gradient, so none would stay as it was initialised."""
    after, _ = stepped({"a": batch(0, 8), "b": batch(1, 8)})
    before = params_lib.init(lambda rngs: TwoTowers(CONFIG, Execution(), rngs=rngs), 0)
    same = jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), before, after)
    # A softmax does not see what is added to all keys alike.
    still = [jax.tree_util.keystr(p) for p, x in jax.tree_util.tree_leaves_with_path(same) if x]
    assert all("key']['bias" in path for path in still), still


def test_stochastic_depth_is_drawn_from_the_state_and_not_without_being_asked_for():
    """Of an NFNet; traced, not compiled."""
    vision = dataclasses.replace(contrastive.nfnet("thin", 64), width=192)
    optimizer = optax.sgd(1.0)

    def draws(asked: bool) -> int:
        config = dataclasses.replace(CONFIG, vision=vision, stochastic_depth=asked)
        graph, shapes, _ = params_lib.abstract(
            lambda rngs: TwoTowers(config, Execution(), rngs=rngs)
        )
        step = make_train_step(graph, optimizer, WEIGHTS)
        made = batch(0, 4)._replace(media=np.zeros((4, 1, 1, 64, 64, 3), np.uint8))
        begin = state.TrainState(
            np.zeros((), np.int32), shapes, optimizer.init(shapes), np.zeros(2, np.uint32)
        )
        text = str(jax.make_jaxpr(step)(begin, {}, {"a": made}))
        return text.count("random_bits")

    assert draws(True) > 0 == draws(False)
