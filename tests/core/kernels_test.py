"""Kernels against plain attention: values and gradients, padding, grouped heads, a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.core import partition
from flamingo_jax.core.kernels import _fits_cudnn, attend_causally, resolve

B, T, N, K, H = 2, 128, 4, 2, 128


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    q = rng.normal(size=(B, T, N, H)).astype(np.float32)
    k, v = rng.normal(size=(2, B, T, K, H)).astype(np.float32)
    segments = np.ones((B, T), np.int32)
    segments[0, 100:] = segments[1, :17] = 0  # padding behind, and before
    segments[1, 60:] = 2  # two texts in a row
    return q, k, v, segments


def mask_of(segments):
    same = segments[:, :, None] == segments[:, None]
    return np.tril(same & (segments > 0)[:, None])


def loss(q, k, v, segments, *, mask, **how):
    """Of real tokens only, each element weighted differently."""
    out = attend_causally(q, k, v, mask, segments, **how) * (segments > 0)[..., None, None]
    return jnp.sum(out * jnp.cos(jnp.arange(out.size).reshape(out.shape))), out


def values_and_gradients(inputs, **how):
    how["mask"] = mask_of(inputs[3])
    f = jax.value_and_grad(functools.partial(loss, **how), (0, 1, 2), has_aux=True)
    (_, out), grads = jax.jit(f)(*inputs)
    return out, *grads


@pytest.mark.parametrize("on_mesh", [False, True])
def test_splash_equals_plain_attention(inputs, on_mesh):
    want = values_and_gradients(inputs, kernel="xla")
    if on_mesh:
        with jax.set_mesh(partition.make_mesh(2, 1, 2, devices=jax.devices()[:4])):
            found = values_and_gradients(inputs, kernel="splash", interpret=True)
    else:
        found = values_and_gradients(inputs, kernel="splash", interpret=True)
    for a, b in zip(found, want, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize(
    ("t", "h", "dtype"),
    [(8, 64, "float32"), (7, 64, "bfloat16"), (8, 12, "bfloat16"), (8, 256, "bfloat16")],
)
def test_what_cudnn_does_not_take_goes_through_xla(t, h, dtype):
    """On a CPU cuDNN would fail."""
    q = jnp.ones((1, t, 2, h), dtype)
    mask, segments = np.tril(np.ones((1, t, t), bool)), np.ones((1, t), np.int32)
    assert attend_causally(q, q, q, mask, segments, "cudnn").shape == q.shape
    fits = jnp.ones((1, 8, 2, 64), "bfloat16")
    assert _fits_cudnn(fits)


def test_rows_that_no_block_fits_go_through_xla(inputs):
    q, k, v, segments = (x[:, :100] for x in inputs)
    args = q, k, v, mask_of(segments), segments
    found = attend_causally(*args, kernel="splash")
    np.testing.assert_array_equal(found, attend_causally(*args, kernel="xla"))


def test_auto_is_the_platforms_own():
    assert [resolve("auto", p) for p in ("cpu", "tpu", "gpu")] == ["xla", "splash", "cudnn"]
    assert resolve("xla", "tpu") == "xla"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cudnn", r"attention='cudnn' does not run on cpu: use 'xla'"),
        ("flesh", r"attention='flesh': use one of \['auto', 'xla', 'splash', 'cudnn'\]"),
    ],
)
def test_a_kernel_that_cannot_run_says_which_can(name, message):
    with pytest.raises(ValueError, match=message):
        resolve(name, "cpu")


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="set FLAMINGO_TEST_PLATFORM=cuda")
def test_cudnn_equals_plain_attention(inputs):
    half = [jnp.asarray(x, jnp.bfloat16) for x in inputs[:3]]
    want = values_and_gradients((*half, inputs[3]), kernel="xla")
    found = values_and_gradients((*half, inputs[3]), kernel="cudnn")
    for a, b in zip(found, want, strict=True):
        np.testing.assert_allclose(a, b, atol=0.05)
