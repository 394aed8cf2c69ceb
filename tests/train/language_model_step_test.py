"""One update of a language model by itself: cut among devices as on one, packed as apart."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.configs import language_model
from flamingo_jax.batch import Batch
from flamingo_jax.config import LanguageModelConfig, from_dict
from flamingo_jax.core import hosts, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.lm import LanguageModel
from flamingo_jax.train import state
from flamingo_jax.train.language_model_optim import LanguageModelOptimizerConfig
from flamingo_jax.train.language_model_step import make_train_step, text_loss

CHANGES = {"vocab_size": 64, "sliding_window": 5, "global_layers": (1,)}
CONFIG = from_dict(LanguageModelConfig, language_model.micro().model.to_dict() | CHANGES)


def make(rngs):
    return LanguageModel(CONFIG, Execution(), rngs=rngs)


GRAPH, SHAPES, AXES = params_lib.abstract(make)


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(np.asarray, params_lib.init(make, 0))


def batch(rows, length=16):
    tokens = np.random.default_rng(0).integers(0, 64, (rows, length)).astype(np.int32)
    mask = np.arange(length) < np.linspace(5, length, rows)[:, None]
    media = np.zeros((rows, 0, 1, 1, 1, 3), np.uint8), np.zeros((rows, 0, 1), bool)
    return Batch(tokens, mask, mask, np.zeros_like(tokens), *media)


def test_a_mesh_changes_nothing(params):
    optimizer = optax.sgd(1.0)
    step = jax.jit(make_train_step(GRAPH, "float32", optimizer, {"texts": 1.0}))

    def run(devices, **sizes):
        mesh = partition.make_mesh(**sizes, devices=jax.devices()[:devices])
        placed = hosts.place(params, partition.shardings(AXES, SHAPES, mesh))
        with jax.set_mesh(mesh):
            begin = state.create(placed, optimizer, 0, mesh)
            return jax.device_get(step(begin, {}, hosts.place_rows({"texts": batch(8)}, mesh)))

    (alone, row), (cut, cut_row) = run(1), run(8, data=2, fsdp=2, tensor=2)
    np.testing.assert_allclose(row["loss"], cut_row["loss"], rtol=1e-5)
    same = jax.tree.map(lambda a, b: np.abs(a - b).max() < 1e-5, alone.trainable, cut.trainable)
    assert all(jax.tree.leaves(same))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, alone.trainable, params)
    assert all(jax.tree.leaves(moved))


def test_texts_that_share_a_row_cost_what_they_cost_apart(params):
    apart = batch(2, 8)
    together = {
        name: getattr(apart, name).reshape(1, 16)
        for name in ("tokens", "token_mask", "loss_mask", "media_index")
    }
    first = np.zeros((1, 16), bool)
    first[0, [0, 8]] = True  # nothing predicts the first token of a text
    together["loss_mask"] &= ~first
    apart = apart._replace(loss_mask=together["loss_mask"].reshape(2, 8))
    segments = np.repeat([[1, 2]], 8, axis=1).astype(np.int32) * together["token_mask"]
    media = {"media": apart.media[:1], "media_mask": apart.media_mask[:1]}
    packed = Batch(**together, **media, segments=segments)
    found, want = (text_loss(GRAPH, params, "float32", b)[0] for b in (packed, apart))
    np.testing.assert_allclose(found, want, rtol=1e-5)


def test_the_rate_rises_and_falls_to_a_tenth():
    schedule = LanguageModelOptimizerConfig(learning_rate=1e-3, warmup_steps=10).schedule(110)
    rates = [float(schedule(s)) for s in (0, 10, 60, 110)]
    np.testing.assert_allclose(rates, [1e-7, 1e-3, 5.5e-4, 1e-4], rtol=1e-4)


def test_the_tables_gradient_is_of_inputs_and_outputs(params):
    """Tied: a token that is read and never a target has a gradient all the same."""
    grads = jax.grad(lambda p: text_loss(GRAPH, p, "float32", batch(2))[0])(params)
    assert (jnp.abs(grads["embedding"]).max(1) > 0).all()
