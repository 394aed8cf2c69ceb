"""Datasets side by side are those one after the other: losses, gradients; a row moves nowhere."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from flamingo_jax.aot import cost
from flamingo_jax.batch import Batch
from flamingo_jax.core import params as params_lib
from flamingo_jax.core import partition
from flamingo_jax.train import joined, state
from flamingo_jax.train.step import make_train_step
from tests import tiny_flamingo as tiny

pytestmark = pytest.mark.skipif(jax.device_count() != 8, reason="conftest makes eight CPU devices")

WEIGHTS = {"pages": 1.0, "pairs": 0.2, "packed": 0.3, "videos": 0.05}
ROTARY = tiny.changed(lm={"num_layers": 3}, cross_attention={"every": 2})
TRAINED = dataclasses.replace(ROTARY, trained=("language_model",))
RELATIVE = dataclasses.replace(
    ROTARY,
    language_model=dataclasses.replace(ROTARY.language_model, positions="relative", num_kv_heads=4),
)


def ragged(batch, seed):
    """Ends of rows are padding, one row is nothing else, and a media item is missing."""
    rng = np.random.default_rng(seed)
    b, t = batch.tokens.shape
    lengths = rng.integers(t // 2, t + 1, b)
    lengths[1] = 0
    there = np.arange(t) < lengths[:, None]
    media_mask = batch.media_mask.copy()
    media_mask[2, 0] = False
    return batch._replace(
        token_mask=there,
        loss_mask=batch.loss_mask & there,
        media_index=np.where(there, batch.media_index, 0),
        media_mask=media_mask,
    )


def packed(batch):
    """Two texts a row, each with the first or the second media item."""
    second = np.arange(batch.tokens.shape[1]) >= 5
    number = np.where(second, 2, 1)[None].repeat(len(batch.tokens), 0).astype(np.int32)
    number = np.where(batch.token_mask, number, 0)
    seen = np.where(batch.media_index > 0, number, 0)
    return batch._replace(segments=number, media_index=seen)


BATCHES = {
    "pages": ragged(tiny.random_batch(8, 26, 3, seed=1), 1),  # two more than what stands beside
    "pairs": ragged(tiny.random_batch(16, 8, 1, seed=2), 2),  # three beside, one place empty
    "packed": packed(ragged(tiny.random_batch(8, 12, 2, seed=3), 3)),
    "videos": ragged(tiny.random_batch(8, 7, 1, num_frames=2, seed=4), 4),  # one of three places
}


def update(config, mesh, *, num=1, join_datasets=True, names=tuple(BATCHES)):
    """(gradients, metrics) of a step whose optimizer keeps the gradient as it is."""
    graph, shapes, axes = tiny.abstract(config)
    also = config.trained
    optimizer = optax.sgd(1.0, momentum=0.9)
    where = partition.shardings(axes, shapes, mesh, also)
    trainable, frozen = params_lib.split(jax.device_put(tiny.random_params(config), where), also)
    start = state.create(trainable, optimizer, 0, mesh)
    batches = {name: BATCHES[name] for name in names}
    batches = jax.device_put(batches, partition.batch_sharding(mesh))
    step = make_train_step(graph, config, optimizer, WEIGHTS, num, join_datasets=join_datasets)
    with jax.set_mesh(mesh):
        after, row = jax.jit(step)(start, frozen, batches)
    return jax.device_get((optax.tree_utils.tree_get(after.opt_state, "trace"), row))


def check_same(found, want):
    """Losses to 1e-6; of every gradient the largest error to 1e-5 of the largest."""
    for name in (key for key in want[1] if key.startswith("loss")):
        np.testing.assert_allclose(found[1][name], want[1][name], rtol=2e-6, err_msg=name)

    def check(path, leaf, want_leaf):
        largest = np.abs(want_leaf).max()
        assert np.abs(leaf - want_leaf).max() <= 1e-5 * largest, path
        assert largest > 0, path

    jax.tree_util.tree_map_with_path(check, found[0], want[0])


@pytest.fixture(scope="module")
def want():
    """On one device, one dataset after the other."""
    return update(ROTARY, partition.make_mesh(devices=jax.devices()[:1]), join_datasets=False)


def test_losses_and_gradients_are_those_of_one_dataset_after_the_other(want):
    """On eight devices, in two parts, where rows of every dataset share a row or are left over."""
    check_same(update(ROTARY, partition.make_mesh(2, 2, 2), num=2), want)


def test_one_dataset_alone_is_itself(want):
    alone = partition.make_mesh(devices=jax.devices()[:1])
    _, row = update(ROTARY, alone, names=("pairs",))
    np.testing.assert_allclose(row["loss/pairs"], want[1]["loss/pairs"], rtol=2e-6)
    np.testing.assert_allclose(row["loss"], WEIGHTS["pairs"] * row["loss/pairs"], rtol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("config", [TRAINED, RELATIVE], ids=["trained", "relative"])
def test_so_they_are_of_other_models(config):
    alone = partition.make_mesh(devices=jax.devices()[:1])
    check_same(update(config, alone), update(config, alone, join_datasets=False))


def test_rows_stand_as_drawn():
    """Four pairs beside pages of three times their length and one token more."""

    def rows(tokens, num_media):
        b, t = tokens.shape
        return Batch(
            tokens=tokens,
            token_mask=np.ones((b, t), bool),
            loss_mask=np.ones((b, t), bool),
            media_index=np.ones((b, t), np.int32),
            media=np.zeros((b, num_media, 1, 1, 1)),
            media_mask=np.ones((b, num_media, 1), bool),
        )

    pairs = np.arange(8, dtype=np.int32).reshape(4, 2)
    shown = {"pages": rows(np.full((2, 7), 9, np.int32), 2), "pairs": rows(pairs, 1)}
    found = joined.join(shown, {"pages": 4, "pairs": 0}, {"pages": 2.0, "pairs": 4.0})
    assert found.tokens[2:].tolist() == [[0, 1, 2, 3, 4, 5, 0], [6, 7, 0, 0, 0, 0, 0]]
    assert found.segments[2:].tolist() == [[1, 1, 2, 2, 3, 3, 0], [1, 1, 0, 0, 0, 0, 0]]
    assert found.media_index[2].tolist() == [1, 1, 2, 2, 3, 3, 0]
    assert found.items[:, :2].tolist() == [[4, 5], [6, 7], [0, 1], [3, 0]]
    assert found.media_mask.sum(1).tolist() == [2, 2, 3, 1]
    assert found.dataset[:, 0].tolist() == [0, 0, 1, 1]
    shares = np.asarray(found.shares)
    np.testing.assert_allclose(shares[2], [0.25, 0, 0.25, 0, 0.25, 0, 0])


def test_no_row_leaves_its_device():
    mesh = partition.make_mesh(2, 2, 2)
    rows = partition.batch_sharding(mesh)
    first = dict.fromkeys(BATCHES, 0)
    counts = dict.fromkeys(BATCHES, np.float32(1))
    with jax.set_mesh(mesh):
        join = jax.jit(lambda batches: joined.join(batches, first, counts))
        compiled = join.lower(jax.device_put(BATCHES, rows)).compile()
    assert not [kind for kind in cost.COLLECTIVES if kind in compiled.as_text()]
    for where in jax.tree.leaves(compiled.output_shardings):
        assert where.is_equivalent_to(rows, 2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (tiny.CONFIG, "data.train.texts, which has no media: set it to False, or leave out"),
        (tiny.changed(cross_attention={"attend": "all_previous"}), "attend='all_previous': set"),
    ],
)
def test_what_must_be_visited_one_by_one_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        joined.check(config, {"pages": 5, "texts": 0})
