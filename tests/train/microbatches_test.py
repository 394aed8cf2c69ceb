"""A step in parts is the step of the whole batch, holds less, and moves no row between devices.

Pixels go through a small vision encoder; parts have unequal numbers of targets, one of them none.
"""

import collections
import dataclasses

import jax
import numpy as np
import optax
import pytest

from flamingo_jax.aot import cost, hlo
from flamingo_jax.batch import Batch
from flamingo_jax.config import ImagePreprocessing, VisionConfig
from flamingo_jax.core import params as params_lib
from flamingo_jax.core import partition
from flamingo_jax.models.vision import output_shape
from flamingo_jax.train import microbatches, state
from flamingo_jax.train.step import make_train_step
from tests import tiny_flamingo as tiny

pytestmark = pytest.mark.skipif(jax.device_count() != 8, reason="conftest makes eight CPU devices")

SIZE_PX, NUM = 32, 4
WEIGHTS = {"pages": 1.0, "pairs": 0.2}
VISION = VisionConfig("vit", "thin", 0, 0, preprocessing=ImagePreprocessing(size_px=SIZE_PX))
CONFIG = tiny.changed(
    lm={"num_layers": 2},
    resampler={"depth": 1},
    cross_attention={"offset": 0},
    vision=dataclasses.replace(
        VISION, **dict(zip(("num_features", "width"), output_shape(VISION), strict=True))
    ),
)
EXECUTION = dataclasses.replace(tiny.SCANNED, images_at_once=8)


def batch(rows: int, length: int, num_media: int, seed: int) -> Batch:
    """Pixels; as many targets as make all parts unequal, cut among four devices or not at all."""
    made = tiny.random_batch(rows, length, num_media, seed=seed)
    rng = np.random.default_rng(seed)
    among, inside = np.divmod(np.arange(rows) * 16 // rows, 4)
    share = np.array([0.0, 0.4, 0.6, 0.9])[among] * np.array([1.0, 0.5, 0.8, 0.0])[inside]
    return made._replace(
        loss_mask=made.loss_mask & (rng.random(made.tokens.shape) < share[:, None]),
        media=rng.integers(0, 256, (rows, num_media, 1, SIZE_PX, SIZE_PX, 3), dtype=np.uint8),
        media_mask=rng.random(made.media_mask.shape) < 0.8,
    )


BATCHES = {"pages": batch(16, 24, 3, seed=1), "pairs": batch(32, 8, 1, seed=2)}


class Step:
    """A compiled step; the optimizer keeps the gradient as it is."""

    def __init__(self, mesh, num: int, names=tuple(BATCHES)):
        graph, shapes, axes = tiny.abstract(CONFIG, EXECUTION)
        optimizer = optax.sgd(1.0, momentum=0.9)
        where = partition.shardings(axes, shapes, mesh)
        params = jax.device_put(tiny.random_params(CONFIG), where)
        trainable, self.frozen = params_lib.split(params)
        self.start = state.create(trainable, optimizer, 0, mesh)
        self.rows = partition.batch_sharding(mesh)
        args = self.start, self.frozen, self.placed({name: BATCHES[name] for name in names})
        step = make_train_step(graph, CONFIG, optimizer, WEIGHTS, num)
        out = (jax.tree.map(lambda leaf: leaf.sharding, self.start), None)
        with jax.set_mesh(mesh):
            self.compiled = jax.jit(step, out_shardings=out).lower(*args).compile()
        self.text = self.compiled.as_text()

    def placed(self, batches):
        return jax.device_put(batches, self.rows)

    def update(self, batches):
        """(gradients, trained parameters, metrics) after one update."""
        after, row = self.compiled(self.start, self.frozen, self.placed(batches))
        grads = optax.tree_utils.tree_get(after.opt_state, "trace")
        return jax.device_get((grads, after.trainable, row))


@pytest.fixture(scope="module")
def whole():
    return Step(partition.make_mesh(2, 2, 2), 1)


@pytest.fixture(scope="module")
def parted():
    return Step(partition.make_mesh(2, 2, 2), NUM)


def check_same(found, want):
    """Losses to 1e-6; of every gradient and parameter the largest error to 1e-5 of the largest."""
    row, want_row = found[2], want[2]
    for name in (key for key in row if key.startswith("loss")):
        np.testing.assert_allclose(row[name], want_row[name], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(row["grad_norm"], want_row["grad_norm"], rtol=1e-5)

    def check(path, leaf, want_leaf):
        largest = np.abs(want_leaf).max()
        assert np.abs(leaf - want_leaf).max() <= 1e-5 * largest, path
        assert largest > 0, path

    jax.tree_util.tree_map_with_path(check, found[:2], want[:2])


def test_losses_and_gradients_are_those_of_one_batch(whole, parted):
    check_same(parted.update(BATCHES), whole.update(BATCHES))


def test_round_robin_takes_parts_of_the_one_dataset_that_it_visits(whole):
    """On one device; the other step sees a dataset beside it that has no targets."""
    found = Step(partition.make_mesh(devices=jax.devices()[:1]), NUM, ["pairs"])
    pages = BATCHES["pages"]
    nothing = pages._replace(loss_mask=np.zeros_like(pages.loss_mask))
    pairs = {"pairs": BATCHES["pairs"]}
    check_same(found.update(pairs), whole.update({"pages": nothing, **pairs}))


@pytest.mark.parametrize("data", [1, 4])
def test_the_parts_of_these_tests_are_unequal(data):
    """One without any target, so that a mean of their means would be another loss or none."""
    with jax.set_mesh(partition.make_mesh(data, devices=jax.devices()[:data])):
        for batch in BATCHES.values():
            masks = [microbatches.part(batch.loss_mask, i, NUM)[:, 1:] for i in range(NUM)]
            counts = [int(mask.sum()) for mask in masks]
            assert sum(counts) == batch.loss_mask[:, 1:].sum()
            assert min(counts) == 0
            assert max(counts) > 1.3 * sorted(counts)[1]


def test_every_device_keeps_its_rows():
    """16 rows on 4 devices in 2 parts: the first half of each device's four, then the second."""
    mesh = partition.make_mesh(2, 2, 2)
    rows = partition.batch_sharding(mesh)
    x = jax.device_put(np.arange(32).reshape(16, 2), rows)
    with jax.set_mesh(mesh):
        part = jax.jit(microbatches.part, static_argnums=2).lower(x, 0, 2).compile()
        found = [part(x, np.int32(i)) for i in range(2)]
    assert [(y[:, 0] // 2).tolist() for y in found] == [
        [0, 1, 4, 5, 8, 9, 12, 13],
        [2, 3, 6, 7, 10, 11, 14, 15],
    ]
    assert all(y.sharding.is_equivalent_to(rows, 2) for y in found)
    assert not [kind for kind in cost.COLLECTIVES if kind in part.as_text()]


def test_no_picture_is_sent_and_no_kind_of_collective_is_more_a_part(whole, parted):
    picture = f"{SIZE_PX},{SIZE_PX},3]"
    for line in parted.text.splitlines():
        assert picture not in line or not any(f" {kind}" in line for kind in cost.COLLECTIVES)

    def times(step):
        found = collections.Counter()
        for collective in cost.of(hlo.parse(step.text)).collectives:
            found[collective.kind] += collective.times
        return found

    limit = {kind: NUM * count for kind, count in times(whole).items()}
    assert times(parted) <= collections.Counter(limit)


def test_activations_take_the_memory_of_one_part(whole, parted):
    before, after = (s.compiled.memory_analysis().temp_size_in_bytes for s in (whole, parted))
    assert after < 0.5 * before
