"""One update: what moves and what never does, the weighted sum over datasets, one trace."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from flamingo_jax.config import DTypePolicy
from flamingo_jax.core import params as params_lib
from flamingo_jax.core import partition
from flamingo_jax.train import state
from flamingo_jax.train.optim import OptimizerConfig, make_optimizer
from flamingo_jax.train.step import batch_loss, make_train_step
from tests import tiny_flamingo as tiny

WEIGHTS = {"pages": 1.0, "pairs": 0.2}
# The first update has a learning rate of 0, as in the paper; the gates move in the second.
UPDATES = 4
# One block before, gated blocks before 1 and 2; the scale shows in the metrics.
CONFIG = tiny.changed(
    lm={"num_layers": 3}, cross_attention={"every": 1, "offset": 1, "branch_scale": 2.0}
)


class Run:
    """A few updates from fresh gates, bfloat16 frozen weights, each dataset with its own batch."""

    def __init__(self, optimizer=None, max_traces: int = 1):
        self.graph, _, _ = tiny.abstract(CONFIG)
        policy = DTypePolicy(frozen="bfloat16", trainable="float32")
        parts = params_lib.split(tiny.random_params(CONFIG, gate=0.0))
        self.trainable, self.frozen = params_lib.cast(*parts, policy)
        self.optimizer = optimizer or make_optimizer(
            OptimizerConfig(learning_rate=1e-2, warmup_steps=1)
        )
        self.batches = {
            "pages": tiny.random_batch(seed=1),
            "pairs": tiny.random_batch(seed=2),  # of one shape, so that one compile serves both
        }
        mesh = partition.make_mesh(devices=jax.devices()[:1])
        self.start = state.create(self.trainable, self.optimizer, 0, mesh)
        step = make_train_step(self.graph, CONFIG, self.optimizer, WEIGHTS)
        self.step = jax.jit(chex.assert_max_traces(step, n=max_traces))
        self.states, self.rows = [self.start], []

    def update(self, count: int, batches=None) -> "Run":
        for _ in range(count):
            now, row = self.step(self.states[-1], self.frozen, batches or self.batches)
            self.states.append(now)
            self.rows.append(jax.device_get(row))
        return self


@pytest.fixture(scope="module")
def run():
    chex.clear_trace_counter()
    return Run().update(UPDATES)


@pytest.fixture(scope="module")
def losses_and_gradients(run):
    """Of each dataset alone, at the start."""
    gradient = jax.jit(jax.value_and_grad(lambda t, f, batch: batch_loss(run.graph, t, f, batch)))
    return {name: gradient(run.trainable, run.frozen, b) for name, b in run.batches.items()}


def moved(before, after):
    """Paths of leaves that differ."""
    flat = traverse_util.flatten_dict(after.trainable)
    old = traverse_util.flatten_dict(before.trainable)
    return {path for path in flat if (np.asarray(flat[path]) != np.asarray(old[path])).any()}


def test_frozen_leaves_stay_as_they_are(run):
    want = params_lib.cast({}, params_lib.split(tiny.random_params(CONFIG))[1], DTypePolicy())[1]
    jax.tree.map(np.testing.assert_array_equal, run.frozen, want)


def test_with_a_learning_rate_of_zero_nothing_moves(run):
    assert moved(run.states[0], run.states[1]) == set()


def test_shut_gates_let_only_themselves_and_the_new_rows_move(run):
    paths = moved(run.states[1], run.states[2])
    gates = {p for p in paths if p[-1].endswith("_gate")}
    assert len(gates) == 2
    # Weight decay moves the gated matrices too, a gradient none but gates and new rows.
    decayed = {p for p in paths if p[0] == "gated_xattn" and p[-1] == "kernel"}
    assert paths - gates - decayed == {("new_tokens", "embedding")}


def test_after_two_updates_every_trainable_leaf_has_moved(run):
    everything = set(traverse_util.flatten_dict(run.trainable))
    assert moved(run.states[1], run.states[3]) == everything


def test_dtypes_before_and_after(run):
    for now in (run.states[0], run.states[-1]):
        for leaf in jax.tree.leaves((now.trainable, now.opt_state)):
            assert leaf.dtype in (jnp.float32, jnp.int32)
        assert now.step.dtype == jnp.int32
        assert {x.dtype for x in jax.tree.leaves(run.frozen)} == {jnp.dtype("bfloat16")}
    chex.assert_trees_all_equal_shapes_and_dtypes(run.states[0], run.states[-1])


def test_the_step_counts_and_the_loss_falls(run):
    assert [int(s.step) for s in run.states] == list(range(UPDATES + 1))
    assert run.rows[-1]["loss"] < run.rows[0]["loss"]
    assert run.rows[0]["loss"] == run.rows[1]["loss"]


def test_the_loss_is_the_weighted_sum(run, losses_and_gradients):
    row = run.rows[0]
    for name, (loss, _) in losses_and_gradients.items():
        np.testing.assert_allclose(row[f"loss/{name}"], loss, rtol=1e-5)
    np.testing.assert_allclose(row["loss"], row["loss/pages"] + 0.2 * row["loss/pairs"], rtol=1e-6)


def test_accumulation_equals_the_gradient_of_the_weighted_sum(run, losses_and_gradients):
    grads = {name: g for name, (_, g) in losses_and_gradients.items()}
    want = jax.tree.map(lambda a, b: a + 0.2 * b, grads["pages"], grads["pairs"])
    np.testing.assert_allclose(run.rows[0]["grad_norm"], optax.global_norm(want), rtol=1e-5)
    moment = optax.tree_utils.tree_get(run.states[1].opt_state, "mu")
    clip = min(1.0, 1.0 / float(optax.global_norm(want)))
    chex.assert_trees_all_close(
        moment, jax.tree.map(lambda g: 0.1 * clip * g, want), rtol=1e-4, atol=1e-7
    )


def test_gates_are_reported_by_block_as_what_multiplies_the_branch(run):
    row, gated = run.rows[-1], run.states[-1].trainable["gated_xattn"]
    names = {f"gate/{block}.{b}" for block in (1, 2) for b in ("attention", "ffw")}
    assert {key for key in row if key.startswith("gate/")} == names
    for branch in ("attention", "ffw"):
        np.testing.assert_allclose(
            [row[f"gate/{block}.{branch}"] for block in (1, 2)],
            2 * np.tanh(gated["groups"]["layers"][f"{branch}_gate"]),
            rtol=1e-6,
        )


def test_round_robin_visits_one_dataset_an_update(losses_and_gradients):
    chex.clear_trace_counter()
    run = Run(optax.sgd(0.0), max_traces=2)  # one a dataset
    visits = ["pages", "pairs", "pages"]
    for name in visits:
        run.update(1, {name: run.batches[name]})
    for row, name in zip(run.rows, visits, strict=True):
        loss, grads = losses_and_gradients[name]
        assert {key for key in row if key.startswith("loss/")} == {f"loss/{name}"}
        np.testing.assert_allclose(row[f"loss/{name}"], loss, rtol=1e-5)
        np.testing.assert_allclose(row["loss"], WEIGHTS[name] * loss, rtol=1e-5)
        norm = WEIGHTS[name] * optax.global_norm(grads)
        np.testing.assert_allclose(row["grad_norm"], norm, rtol=1e-4)


def test_a_loss_that_is_no_number_is_not_hidden(run):
    broken = run.batches["pairs"]
    broken = broken._replace(media=np.full_like(broken.media, np.nan))
    _, row = run.step(run.start, run.frozen, run.batches | {"pairs": broken})
    assert np.isnan(row["loss"])
