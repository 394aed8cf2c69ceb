"""A frozen part trained along: its gradient against a plain one, what moves, meshes, texts.

The reference is `jax.grad` of every parameter at once, logits whole, pictures encoded in one go.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, traverse_util

from flamingo_jax.batch import Batch
from flamingo_jax.config import ImagePreprocessing, VisionConfig
from flamingo_jax.core import hosts, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.vision import normalized
from flamingo_jax.train import state
from flamingo_jax.train.losses import next_token_targets
from flamingo_jax.train.optim import OptimizerConfig, make_optimizer
from flamingo_jax.train.step import make_train_step
from tests import tiny_flamingo as tiny

SIZE_PX = 32
VISION = VisionConfig("vit", "thin", 16, 32, preprocessing=ImagePreprocessing(size_px=SIZE_PX))
WEIGHTS = {"pages": 1.0, "texts": 0.5, "pairs": 0.2}
PARTS = [("language_model",), ("vision",)]
# Three chunks of at most four pictures on one device; remat of layers and of chunks.
EXECUTION = Execution(scan=True, remat="full", images_at_once=4)


def config(trained, **lm):
    # A depth without stacks of stacks of one, and widths that four devices divide.
    small = tiny.changed(lm={"num_layers": 3, "num_kv_heads": 4, **lm}, vision=VISION)
    return dataclasses.replace(small, trained=trained)


def picture_batch(batch_size, num_media, seed) -> Batch:
    """Pixels in the place of features; the last slot of every row but the first is empty."""
    batch = tiny.random_batch(batch_size, num_media=num_media, seed=seed)
    rng = np.random.default_rng(seed)
    shape = (batch_size, num_media, 1, SIZE_PX, SIZE_PX, 3)
    mask = np.ones(shape[:3], bool)
    mask[1:, -1] = False
    return batch._replace(media=rng.integers(0, 256, shape, np.uint8), media_mask=mask)


def text_batch(batch_size, length, seed) -> Batch:
    """Rows without a place for media, the second one half padding."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, tiny.PAD, (batch_size, length)).astype(np.int32)
    there = np.ones(tokens.shape, bool)
    there[1, length // 2 :] = False
    return Batch(
        tokens=tokens,
        token_mask=there,
        loss_mask=there & (np.arange(length) > 0),
        media_index=np.zeros(tokens.shape, np.int32),
        media=np.zeros((batch_size, 0, 1, 1, 1, 3), np.uint8),
        media_mask=np.zeros((batch_size, 0, 1), bool),
    )


BATCHES = {
    "pages": picture_batch(8, 2, seed=1),
    "texts": text_batch(8, 20, seed=2),
    "pairs": picture_batch(8, 1, seed=3),
}


@functools.cache
def params(trained) -> tiny.Tree:
    """Drawn calmly, so that rounding does not grow."""
    drawn = tiny.random_params(config(trained))
    calm = lambda path, x: x if path[-1].key in ("scale",) else x * 0.5  # noqa: E731
    return jax.tree_util.tree_map_with_path(calm, drawn)


def plain_gradient(trained):
    """Of the weighted sum of mean losses, in every parameter."""
    whole = config(trained)
    graph, _, _ = tiny.abstract(whole, Execution(scan=True))

    def loss(params, batch):
        model = nnx.merge(graph, params)
        if batch.media.shape[1]:
            pixels = batch.media.reshape(-1, SIZE_PX, SIZE_PX, 3)
            features = model.vision.encoder(normalized(pixels, VISION.preprocessing))
            features = features.reshape(*batch.media.shape[:3], *features.shape[1:])
            batch = batch._replace(media=features)
        scores = jax.nn.log_softmax(model(batch))
        targets, weights = next_token_targets(batch.tokens, batch.loss_mask)
        right = jnp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
        return -(right * weights).sum() / weights.sum()

    def total(params):
        return sum(WEIGHTS[name] * loss(params, batch) for name, batch in BATCHES.items())

    return jax.jit(jax.value_and_grad(total))(params(trained))


def update(
    trained, *, mesh=None, num_microbatches=1, execution=EXECUTION, names=tuple(BATCHES), **how
):
    """The gradient of a step by path, kept by the optimizer as it is, and the metrics."""
    whole = config(trained)
    graph, shapes, axes = tiny.abstract(whole, execution)
    mesh = mesh or partition.make_mesh(devices=jax.devices()[:1])
    where = params_lib.split(partition.shardings(axes, shapes, mesh, trained), trained)
    trainable, frozen = map(hosts.place, params_lib.split(params(trained), trained), where)
    optimizer = optax.sgd(1.0, momentum=0.9)
    now = state.create(trainable, optimizer, 0, mesh)
    step = make_train_step(graph, whole, optimizer, WEIGHTS, num_microbatches, **how)
    batches = hosts.place_rows({name: BATCHES[name] for name in names}, mesh)
    with jax.set_mesh(mesh):
        after, row = jax.jit(step)(now, frozen, batches)
    kept = optax.tree_utils.tree_get(after.opt_state, "trace")
    return jax.device_get((traverse_util.flatten_dict(kept, sep="/"), row))


@functools.cache
def on_one_device(trained):
    return update(trained)


def assert_close(found, want, share):
    """Every leaf within a share of the largest gradient of its part."""
    largest = {}
    for path, leaf in want.items():
        part = path.split("/")[0]
        largest[part] = max(largest.get(part, 0.0), np.abs(leaf).max())
    for path, leaf in found.items():
        atol = share * largest[path.split("/")[0]]
        np.testing.assert_allclose(leaf, want[path], atol=atol, rtol=0, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("trained", PARTS, ids="+".join)
def test_the_gradient_is_the_plain_one(trained):
    value, want = plain_gradient(trained)
    found, row = on_one_device(trained)
    assert {path.split("/")[0] for path in found} == {
        *("resampler", "gated_xattn", "new_tokens"),
        *trained,
    }
    np.testing.assert_allclose(row["loss"], value, rtol=1e-5)
    want = traverse_util.flatten_dict(want, sep="/")
    assert_close(found, {path: np.asarray(want[path]) for path in found}, 1e-5)
    moving = {path for path, leaf in found.items() if (leaf != 0).any()}
    assert moving == set(found)  # nothing that is trained has no gradient


@pytest.mark.slow
@pytest.mark.parametrize("trained", PARTS, ids="+".join)
def test_so_it_is_with_datasets_side_by_side(trained):
    pictures = {"names": ("pages", "pairs")}
    want, want_row = update(trained, **pictures)
    found, row = update(trained, **pictures, join_datasets=True)
    np.testing.assert_allclose(row["loss"], want_row["loss"], rtol=1e-6)
    assert_close(found, want, 1e-5)


def test_updates_move_what_is_trained_and_nothing_else():
    """With the real optimizer, to whose first updates shut gates would let nothing through."""
    trained = ("language_model",)
    whole = config(trained)
    graph, _, _ = tiny.abstract(whole, EXECUTION)
    trainable, frozen = params_lib.split(params(trained), trained)
    before = jax.device_get(frozen)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_steps=0))
    mesh = partition.make_mesh(devices=jax.devices()[:1])
    now = state.create(trainable, optimizer, 0, mesh)
    step = jax.jit(make_train_step(graph, whole, optimizer, WEIGHTS))
    rows = []
    for _ in range(3):
        now, row = step(now, frozen, BATCHES)
        rows.append(float(row["loss"]))
    assert rows[2] < rows[1] < rows[0]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(frozen), before)
    pairs = jax.tree.map(lambda a, b: bool((a != b).any()), now.trainable, trainable)
    assert all(jax.tree.leaves(pairs))
    moments = optax.tree_utils.tree_get(now.opt_state, "mu")
    assert moments.keys() == {"resampler", "gated_xattn", "new_tokens", "language_model"}


def test_features_of_a_trained_encoder_cannot_be_aligned_before():
    with pytest.raises(ValueError, match=r"^model.vision.aligned_width=9: .* or use None$"):
        dataclasses.replace(tiny.CONFIG, trained=("vision",))


def test_texts_are_read_as_if_their_rows_had_empty_places_for_media():
    """Cross-attention gives exactly zero there; the gated feed-forward is not left out."""
    texts = BATCHES["texts"]
    shape = (8, 2, 1, SIZE_PX, SIZE_PX, 3)
    places = texts._replace(media=np.zeros(shape, np.uint8), media_mask=np.zeros(shape[:3], bool))
    call = tiny.jit(lambda model, batch: model(batch), config(()))
    with_places, without = (call(params(()), batch) for batch in (places, texts))
    np.testing.assert_allclose(without, with_places, atol=1e-5)
    shut = jax.tree_util.tree_map_with_path(
        lambda path, x: 0 * x if path[-1].key == "ffw_gate" else x, params(())
    )
    assert not np.allclose(call(shut, texts), without)


@pytest.mark.parametrize("trained", PARTS, ids="+".join)
@pytest.mark.slow
def test_eight_devices_make_the_step_of_one_in_microbatches_too(trained):
    found, row = update(trained, mesh=partition.make_mesh(2, 2, 2), num_microbatches=2)
    want, expected = on_one_device(trained)
    assert_close(found, want, 1e-5)
    np.testing.assert_allclose(row["loss"], expected["loss"], rtol=1e-5)
