"""The paper's precision: bfloat16 frozen weights and arithmetic, float32 where it learns.

A few updates of one small model under that policy and in float32 throughout, from the same numbers
on the same batches.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from flamingo_jax.config import DTypePolicy
from flamingo_jax.core import params as params_lib
from flamingo_jax.core import partition
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.train import state
from flamingo_jax.train.optim import OptimizerConfig, make_optimizer
from flamingo_jax.train.step import make_train_step
from tests import tiny_flamingo as tiny

PAPER = DTypePolicy()
FLOAT32 = DTypePolicy("float32", "float32", "float32")
UPDATES = 24  # rounding grows from step to step: after 27 some are 3% apart
CONFIG = tiny.changed(lm={"num_layers": 2}, cross_attention={"offset": 0})


def dtypes(tree) -> dict[str, str]:
    """Of every leaf by its path."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): str(leaf.dtype) for path, leaf in leaves}


class Run:
    """`UPDATES` updates under a policy: the losses, and every leaf's dtype before and after."""

    def __init__(self, policy: DTypePolicy):
        graph, _, _ = params_lib.abstract(
            lambda rngs: Flamingo(CONFIG, tiny.SCANNED, dtype=policy.compute, rngs=rngs)
        )
        parts = params_lib.split(tiny.random_params(CONFIG, gate=0.0))
        trainable, frozen = params_lib.cast(*parts, policy)
        optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2, warmup_steps=5))
        mesh = partition.make_mesh(devices=jax.devices()[:1])
        now = state.create(trainable, optimizer, 0, mesh)
        step = jax.jit(make_train_step(graph, CONFIG, optimizer, {"pages": 1.0}))
        batches = [{"pages": tiny.random_batch(batch_size=4, seed=i)} for i in range(3)]
        self.before = dtypes((now, frozen))
        rows = []
        for i in range(UPDATES):
            now, row = step(now, frozen, batches[i % len(batches)])
            rows.append(row)
        self.after = dtypes((now, frozen))
        self.trainable = traverse_util.flatten_dict(now.trainable, sep="/")
        self.losses = np.array([row["loss"] for row in rows])
        self.row_dtypes = dtypes(rows[-1])


@pytest.fixture(scope="module")
def paper():
    return Run(PAPER)


def test_the_loss_curve_is_that_of_float32_within_2_percent(paper):
    want = Run(FLOAT32).losses
    assert want[-3:].mean() < 0.95 * want[:3].mean()  # it learned something in these updates
    np.testing.assert_allclose(paper.losses, want, rtol=0.02)
    assert (paper.losses != want).any()  # and the policy was another


def test_every_leaf_keeps_its_dtype(paper):
    assert paper.before == paper.after
    for path, dtype in paper.after.items():
        if path.startswith("[1]"):
            assert dtype == "bfloat16", path  # frozen
        elif path.endswith((".step", ".count")):
            assert dtype == "int32", path
        else:
            assert dtype == ("uint32" if path.endswith(".key") else "float32"), path


def test_gates_loss_and_norms_are_float32(paper):
    assert set(paper.row_dtypes.values()) == {"float32"}
    gates = [leaf for path, leaf in paper.trainable.items() if path.endswith("_gate")]
    assert all(gate.dtype == jnp.float32 and np.abs(gate).min() > 0 for gate in gates)
