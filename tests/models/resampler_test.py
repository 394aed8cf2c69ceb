"""Perceiver Resampler: any features in, R tokens out; padding, frames, counts of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from flamingo_jax.config import ResamplerConfig
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.resampler import PerceiverResampler, frames_for

CONFIG = ResamplerConfig(num_latents=3, depth=2, width=8, num_heads=2, head_dim=6, num_frames=4)
WIDTH = 5
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def resample():
    """`f(features, frame_mask)` with random parameters."""
    graph, shapes, _ = params_lib.abstract(
        lambda rngs: PerceiverResampler(CONFIG, WIDTH, Execution(), rngs=rngs)
    )
    params = jax.tree.map(
        lambda s: jnp.asarray(0.5 * RNG.normal(size=s.shape), jnp.float32), shapes
    )
    compiled = jax.jit(lambda x, mask: nnx.merge(graph, params)(x, mask))
    return lambda x, mask=None: np.asarray(compiled(x, mask))


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 7), (1, 2, 4, 2), (1, 1, 6, 2)])
def test_any_number_of_media_frames_and_features(resample, shape):
    assert resample(draw(*shape, WIDTH)).shape == (*shape[:2], 3, 8)


def test_media_do_not_mix(resample):
    x = draw(1, 2, 1, 4, WIDTH)
    other = x.copy()
    other[:, 1] += 1
    a, b = resample(x), resample(other)
    np.testing.assert_array_equal(a[:, 0], b[:, 0])
    assert np.abs(a[:, 1] - b[:, 1]).max() > 1e-3


def test_places_have_no_order_but_frames_have(resample):
    """No embedding a place (convolutional features carry it), one a frame."""
    x = draw(1, 1, 2, 4, WIDTH)
    np.testing.assert_allclose(resample(x[:, :, :, ::-1]), resample(x), atol=1e-5)
    assert np.abs(resample(x[:, :, ::-1]) - resample(x)).max() > 1e-3


def test_padding_frames_change_nothing(resample):
    x = draw(1, 2, 3, 4, WIDTH)
    mask = np.array([[[True, True, False], [True, False, False]]])
    garbage = np.where(mask[..., None, None], x, 1e3)
    np.testing.assert_array_equal(resample(garbage, mask), resample(x, mask))
    np.testing.assert_allclose(resample(x, mask)[:, 0], resample(x[:, :, :2])[:, 0], atol=1e-5)
    np.testing.assert_allclose(resample(x, mask)[:, 1], resample(x[:, :, :1])[:, 1], atol=1e-5)


def test_a_media_of_padding_only_stays_finite(resample):
    x = np.zeros((1, 1, 3, 4, WIDTH), np.float32)
    assert np.isfinite(resample(x, np.zeros((1, 1, 3), bool))).all()


def test_eight_learned_frames_become_thirty():
    learned = jnp.arange(8.0)[:, None] * jnp.array([1.0, -10.0])  # value of frame i: i, -10 i
    found = frames_for(learned, 30, interpolate=True)
    assert found.shape == (30, 2)
    np.testing.assert_array_equal(found[0], [0, 0])
    np.testing.assert_allclose(found[-1], [7, -70], atol=1e-5)
    np.testing.assert_allclose(found[1], [7 / 29, -70 / 29], atol=1e-5)  # a 29th of the way
    np.testing.assert_allclose(np.diff(found[:, 0]), 7 / 29, atol=1e-5)


def test_interpolation_is_linear_between_neighbours():
    learned = jnp.array([[0.0], [10.0], [0.0]])
    np.testing.assert_allclose(
        frames_for(learned, 5, interpolate=True)[:, 0], [0, 5, 10, 5, 0], atol=1e-5
    )


def test_fewer_frames_take_the_first_embeddings():
    learned = jnp.arange(8.0)[:, None]
    np.testing.assert_array_equal(frames_for(learned, 3, interpolate=True)[:, 0], [0, 1, 2])
    np.testing.assert_array_equal(frames_for(learned[:1], 3, interpolate=True)[:, 0], [0, 0, 0])


def test_more_frames_than_embeddings_need_interpolation():
    with pytest.raises(ValueError, match=r"9 frames, but resampler.num_frames=8: use up to 8, or"):
        frames_for(jnp.zeros((8, 1)), 9, interpolate=False)


@pytest.mark.parametrize(("head_dim", "millions"), [(128, 193.5), (96, 174.6)])
def test_parameter_counts_at_full_size(head_dim, millions):
    """Table 5 says 194M, which is key size 128 (v1), not 96 (v2), with the input projection."""
    config = ResamplerConfig(head_dim=head_dim)
    _, shapes, _ = params_lib.abstract(
        lambda rngs: PerceiverResampler(config, 3072, Execution(), rngs=rngs)
    )
    flat = traverse_util.flatten_dict(shapes)
    kernels = params_lib.count({path: x for path, x in flat.items() if path[-1] == "kernel"})
    assert round(kernels / 1e6, 1) == millions
    latents, frames, norms = 64 * 1536, 8 * 1536, (6 * 3 + 1) * 2 * 1536
    assert params_lib.count(shapes) - kernels == latents + frames + norms


def test_the_latents_gradient_is_summed_in_float32():
    """Over all media; a sum kept in bfloat16 loses the small ones."""
    graph, shapes, _ = params_lib.abstract(
        lambda rngs: PerceiverResampler(CONFIG, WIDTH, Execution(), rngs=rngs)
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape), "float32"), shapes)
    x = rng.normal(size=(1024, 1, 2, 2, WIDTH)).astype(np.float32)

    def gradient(dtype):
        def loss(params):
            return nnx.merge(graph, params)(x.astype(dtype)).astype(jnp.float32)[..., 0].sum()

        return np.asarray(jax.jit(jax.grad(loss))(params)["latents"])

    want = gradient(jnp.float32)
    assert np.abs(gradient(jnp.bfloat16) - want).max() < 0.005 * np.abs(want).max()
