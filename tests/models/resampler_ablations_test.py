"""The Transformer and the MLP in the resampler's place: what they see, and their size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from flamingo_jax.config import ResamplerConfig
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution, unroll
from flamingo_jax.models.resampler_ablations import make_resampler, mean_over_frames

WIDTH = 5
KINDS = ("transformer", "mlp")
RNG = np.random.default_rng(0)


def config(kind, **changes):
    small = {"num_latents": 3, "depth": 2, "width": 8, "num_heads": 2, "head_dim": 6}
    return ResamplerConfig(kind=kind, **(small | {"num_frames": 4} | changes))


def abstract(c, vision_width=WIDTH, execution=Execution()):  # noqa: B008, frozen
    return params_lib.abstract(lambda rngs: make_resampler(c, vision_width, execution, rngs=rngs))


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def resample(kind):
    """`f(features, frame_mask)` with random parameters."""
    graph, shapes, _ = abstract(config(kind))
    params = jax.tree.map(lambda s: jnp.asarray(0.5 * draw(*s.shape)), shapes)
    compiled = jax.jit(lambda x, mask: nnx.merge(graph, params)(x, mask))
    return lambda x, mask=None: np.asarray(compiled(x, mask))


def test_visual_tokens_are_the_latents_or_the_places(kind, resample):
    for frames, places in ((1, 1), (3, 4), (6, 4)):
        tokens = {"transformer": 3, "mlp": places}[kind]
        assert resample(draw(2, 3, frames, places, WIDTH)).shape == (2, 3, tokens, 8)


def test_media_do_not_mix(resample):
    x = draw(1, 2, 1, 4, WIDTH)
    other = x.copy()
    other[:, 1] += 1
    a, b = resample(x), resample(other)
    np.testing.assert_array_equal(a[:, 0], b[:, 0])
    assert np.abs(a[:, 1] - b[:, 1]).max() > 1e-3


def test_places_mix_in_the_transformer_only(kind, resample):
    x = draw(1, 1, 1, 4, WIDTH)
    other = x.copy()
    other[..., 0, :] += 1
    change = np.abs(resample(other) - resample(x)).max(axis=(0, 1, 3))
    assert change[0] > 1e-3
    assert ((change[1:] > 1e-3) == (kind == "transformer")).all()


def test_frames_have_an_order(resample):
    """Each has an embedding of its own, also where a mean is taken over them."""
    x = draw(1, 1, 2, 4, WIDTH)
    assert np.abs(resample(x[:, :, ::-1]) - resample(x)).max() > 1e-3


def test_padding_frames_change_nothing(resample):
    x = draw(1, 2, 3, 4, WIDTH)
    mask = np.array([[[True, True, False], [True, False, False]]])
    other = np.where(mask[..., None, None], x, x + 1)
    np.testing.assert_array_equal(resample(other, mask), resample(x, mask))
    np.testing.assert_allclose(resample(x, mask)[:, 0], resample(x[:, :, :2])[:, 0], atol=1e-5)
    np.testing.assert_allclose(resample(x, mask)[:, 1], resample(x[:, :, :1])[:, 1], atol=1e-5)


def test_a_media_of_padding_only_stays_finite(resample):
    x = np.zeros((1, 1, 3, 4, WIDTH), np.float32)
    assert np.isfinite(resample(x, np.zeros((1, 1, 3), bool))).all()


def test_a_mean_over_real_frames():
    x = np.array([1.0, 3.0, 50.0])[:, None, None] * np.ones((1, 1, 3, 2, 1))
    found = mean_over_frames(jnp.asarray(x), jnp.array([[[True, True, False]]]))
    np.testing.assert_array_equal(found, 2 * np.ones((1, 1, 2, 1)))
    np.testing.assert_array_equal(
        mean_over_frames(jnp.asarray(x), None), 18 * np.ones((1, 1, 2, 1))
    )


def test_scanned_and_unrolled_agree(kind):
    x = draw(1, 2, 2, 4, WIDTH)
    found = []
    for scan in (True, False):
        graph, shapes, _ = abstract(config(kind), execution=Execution(scan=scan))
        rng = np.random.default_rng(0)
        scanned = abstract(config(kind))[1]
        params = jax.tree.map(lambda s, r=rng: r.normal(size=s.shape).astype(np.float32), scanned)
        params = params if scan else unroll(params)
        assert jax.tree.structure(params) == jax.tree.structure(shapes)
        found.append(np.asarray(jax.jit(nnx.merge(graph, params).__call__)(x)))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("head_dim", [96, 128])
def test_all_kinds_have_as_many_weights_at_full_size(kind, head_dim):
    """In the matrices; the kinds differ by a norm, and the MLP has no latents."""

    def kernels(name):
        c = ResamplerConfig(kind=name, head_dim=head_dim)
        flat = traverse_util.flatten_dict(abstract(c, 3072)[1])
        return params_lib.count({path: x for path, x in flat.items() if path[-1] == "kernel"})

    assert kernels(kind) == kernels("perceiver")
