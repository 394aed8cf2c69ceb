"""The whole model: the bare language model at init, who sees which image, padding, empty rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flamingo_jax.core import params as params_lib
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.train.step import batch_loss
from tests import tiny_flamingo as tiny

SECOND_IMAGE = 5  # where its tag stands in a random batch: images at 2, 5 and 8


@pytest.fixture(scope="module")
def compiled():
    return tiny.jit(Flamingo.__call__)


@pytest.fixture(scope="module")
def logits(compiled):
    """`f(batch)` with random parameters and gates open."""
    params = tiny.random_params()
    return lambda batch: np.asarray(compiled(params, batch))


def moved(batch, media_number):
    """The batch with another picture in one place."""
    media = batch.media.copy()
    media[:, media_number - 1] += 1
    return batch._replace(media=media)


@pytest.mark.parametrize("execution", [tiny.SCANNED, tiny.UNROLLED], ids=["scan", "unrolled"])
def test_at_init_logits_with_any_image_are_the_bare_language_models(execution):
    params = tiny.random_params(execution=execution, gate=0.0)
    batch = tiny.random_batch()
    # The new tokens' input rows are Flamingo's own, so the texts compared have none of them.
    tokens = np.where(batch.tokens < tiny.VOCAB, batch.tokens, 7)
    batch = batch._replace(tokens=tokens)
    ours = tiny.jit(Flamingo.__call__, execution=execution)
    bare = tiny.jit(lambda m, *args: m.language_model(*args), execution=execution)
    want = np.asarray(bare(params, tokens, batch.token_mask))
    for other in (batch, moved(batch, 1)):
        np.testing.assert_array_equal(ours(params, other)[..., : tiny.VOCAB], want)


def test_scanned_and_unrolled_agree():
    """Layers that differ by their window too."""
    config = tiny.changed(lm={"sliding_window": 4, "global_layers": (1, 4)})
    found = [
        tiny.jit(Flamingo.__call__, config, execution)(
            tiny.random_params(config, execution), tiny.random_batch()
        )
        for execution in (tiny.SCANNED, tiny.UNROLLED)
    ]
    np.testing.assert_allclose(*found, atol=2e-5)


def test_the_loss_is_of_bounded_logits():
    """The chunked one, of frozen and new rows, against all logits at once."""
    config = tiny.changed(lm={"logits_softcap": 1.0})
    params, batch = tiny.random_params(config), tiny.random_batch()
    trained, frozen = params_lib.split(params, config.trained)
    graph = tiny.abstract(config)[0]
    found = jax.jit(lambda t, f: batch_loss(graph, t, f, batch))(trained, frozen)
    logits = tiny.jit(Flamingo.__call__, config)(params, batch)
    assert 0.9 < np.abs(logits).max() <= 1
    scores = np.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), batch.tokens[:, 1:, None], -1)
    np.testing.assert_allclose(found, -scores[..., 0][batch.loss_mask[:, 1:]].mean(), rtol=1e-5)


def test_logits_reach_over_frozen_and_new_tokens(logits):
    assert logits(tiny.random_batch()).shape == (2, 12, tiny.VOCAB + 2)


def test_no_token_before_an_image_reacts_to_it(logits):
    batch = tiny.random_batch()
    a, b = logits(batch), logits(moved(batch, 2))
    np.testing.assert_array_equal(a[:, :SECOND_IMAGE], b[:, :SECOND_IMAGE])
    assert np.abs(a - b).max(axis=-1)[:, SECOND_IMAGE:].min() > 1e-4  # the tag itself sees it


def test_padding_media_and_their_pixels_change_nothing(compiled, logits):
    full = tiny.random_batch()
    index = np.minimum(full.media_index, 2)  # the text refers to two media
    third_padded = full.media_mask & (np.arange(3) < 2)[None, :, None]
    padded = full._replace(media_index=index, media_mask=third_padded)
    want = logits(padded)
    np.testing.assert_array_equal(logits(moved(padded, 3)), want)
    two = padded._replace(media=full.media[:, :2], media_mask=third_padded[:, :2])
    np.testing.assert_allclose(logits(two), want, atol=1e-5)


def test_text_that_refers_to_a_padded_media_sees_nothing(logits):
    batch = tiny.random_batch()
    batch = batch._replace(media_mask=np.zeros_like(batch.media_mask))
    np.testing.assert_array_equal(logits(moved(batch, 1)), logits(batch))


def test_the_ablation_reacts_to_all_earlier_images():
    """Only the first token of media 2 is scored against one layer: deeper ones mix through text."""
    config = tiny.changed(
        lm={"num_layers": 1}, cross_attention={"every": 1, "offset": 0, "attend": "all_previous"}
    )
    params = tiny.random_params(config)
    batch = tiny.random_batch(batch_size=1)
    # Blind text: the language model's attention is shut, so that a token sees only its own media.
    attention = params["language_model"]["blocks"]["groups"]["layers"]["layers"]["attention"]
    attention["out"]["kernel"] = jnp.zeros_like(attention["out"]["kernel"])
    change = {}
    for attend in ("last", "all_previous"):
        run = tiny.jit(
            Flamingo.__call__,
            tiny.changed(
                lm={"num_layers": 1}, cross_attention={"every": 1, "offset": 0, "attend": attend}
            ),
        )
        difference = np.abs(run(params, batch) - run(params, moved(batch, 1))).max(axis=(0, 2))
        change[attend] = (difference > 1e-5).astype(int).tolist()
    assert change == {
        "last": [0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        "all_previous": [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    }


def test_an_empty_row_is_finite_and_gives_no_gradient():
    """What the data pipeline puts in the place of a bad record."""
    graph, _, _ = tiny.abstract()
    trainable, frozen = params_lib.split(tiny.random_params())

    def empty_row(batch, row):
        batch = jax.tree.map(np.copy, batch)
        batch.tokens[row] = tiny.PAD
        for rows in batch[1:6]:  # the masks, the media and who sees which
            rows[row] = 0
        return batch

    gradient = jax.jit(jax.value_and_grad(lambda t, batch: batch_loss(graph, t, frozen, batch)))
    batch = tiny.random_batch()
    one_empty = empty_row(batch, 1)
    loss, grads = gradient(trainable, one_empty)
    other = one_empty._replace(media=one_empty.media + np.array([0, 1])[:, None, None, None, None])
    want_loss, want = gradient(trainable, other.__class__(*other))
    assert np.isfinite(loss)
    assert loss == want_loss
    for a, b in zip(*map(jax.tree.leaves, (grads, want)), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, atol=1e-7)
    loss, grads = gradient(trainable, empty_row(one_empty, 0))
    assert loss == 0
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(grads))


def test_new_rows_learn_as_inputs_unless_told_not_to():
    def gradient(train_new_inputs):
        config = tiny.changed(train_new_inputs=train_new_inputs)
        graph, _, _ = tiny.abstract(config)
        trainable, frozen = params_lib.split(tiny.random_params(config))
        new, rest = trainable.pop("new_tokens"), trainable

        def embedded(new):
            model = nnx.merge(graph, rest | frozen | {"new_tokens": new})
            return model.embed(jnp.array([[tiny.IMAGE, 3]])).sum()

        return np.asarray(jax.grad(embedded)(new)["embedding"])

    np.testing.assert_array_equal(gradient(True)[0], 1)
    np.testing.assert_array_equal(gradient(True)[1], 0)
    np.testing.assert_array_equal(gradient(False), 0)


def test_pixels_pass_the_frozen_encoder():
    """Pixels give what their features give, and no gradient reaches the encoder."""
    vision = tiny.CONFIG.vision
    config = tiny.changed(
        vision=type(vision)("efficientnet_lite", "thin", 1, 1280, aligned_width=9)
    )
    params = tiny.random_params(config)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1, 2, 1, 32, 32, 3)).astype(np.uint8)
    encode = tiny.jit(lambda m, x: m.vision(x), config)
    look = tiny.jit(lambda m, x: m.visual_tokens(x), config)
    features = encode(params, pixels)
    assert features.shape == (1, 2, 1, 1, 1280)
    np.testing.assert_allclose(look(params, pixels), look(params, features), atol=1e-5)


def test_visual_tokens_are_projected_once_to_the_media_width():
    config = tiny.changed(cross_attention={"media_width": 20})
    params = tiny.random_params(config)
    kernel = params["gated_xattn"]["media_projection"]["kernel"]
    assert kernel.shape == (config.resampler.width, 20)
    key = params["gated_xattn"]["groups"]["layers"]["key"]["kernel"]
    assert key.shape[1] == 20
    batch = tiny.random_batch()
    found = tiny.jit(Flamingo.visual_tokens, config)(params, batch.media, batch.media_mask)
    bare = tiny.jit(lambda m, *args: m.resampler(m.vision.align(args[0]), args[1]), config)
    want = bare(params, jnp.asarray(batch.media), batch.media_mask) @ kernel
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    logits = tiny.jit(Flamingo.__call__, config)(params, batch)
    assert (
        np.abs(logits - tiny.jit(Flamingo.__call__, config)(params, moved(batch, 2))).max() > 1e-4
    )
