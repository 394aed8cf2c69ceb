"""Video through the whole model: 8 frames in training, 30 by interpolation, masked ones unseen."""

import jax
import numpy as np

from flamingo_jax.core import params as params_lib
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.train.step import batch_loss
from tests import tiny_flamingo as tiny

# One segment and one layer: most of the time is compiling.
CONFIG = tiny.changed(
    lm={"num_layers": 2},
    cross_attention={"every": 2, "offset": 0},
    resampler={"num_frames": 8, "depth": 1},
)


def test_eight_frames_train_all_temporal_embeddings_and_a_single_one_the_first():
    graph, _, _ = tiny.abstract(CONFIG)
    trainable, frozen = params_lib.split(tiny.random_params(CONFIG))

    @jax.jit
    def gradient(batch):
        grads = jax.grad(lambda t: batch_loss(graph, t, frozen, batch))(trainable)
        return grads["resampler"]["frame_embeddings"]

    batch = tiny.random_batch(num_frames=8)
    assert np.abs(gradient(batch)).max(axis=1).min() > 1e-6
    first = np.abs(gradient(batch._replace(media_mask=batch.media_mask & (np.arange(8) < 1))))
    assert first[0].max() > 1e-6
    np.testing.assert_array_equal(first[1:], 0)


def test_thirty_frames_are_told_apart_and_padding_among_them_is_not_seen():
    params = tiny.random_params(CONFIG)
    logits = tiny.jit(Flamingo.__call__, CONFIG)
    batch = tiny.random_batch(num_frames=30)
    want = np.asarray(logits(params, batch))
    assert np.isfinite(want).all()
    turned = logits(params, batch._replace(media=batch.media[:, :, ::-1]))
    assert np.abs(want - turned).max() > 1e-4
    mask = batch.media_mask & (np.arange(30) < 11)
    other = np.where(mask[..., None, None], batch.media, 7.0)
    a, b = (logits(params, batch._replace(media=m, media_mask=mask)) for m in (batch.media, other))
    np.testing.assert_array_equal(a, b)
    assert np.abs(want - a).max() > 1e-4
