"""Attention against a direct sum in numpy, and what a row that sees nothing gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.core.attention import attend

B, T, S, N, K, H = 2, 3, 5, 6, 2, 4


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    q = rng.normal(size=(B, T, N, H)).astype(np.float32)
    k, v = rng.normal(size=(2, B, S, K, H)).astype(np.float32)
    mask = rng.random((B, T, S)) < 0.6
    mask[..., 0] = True
    return q, k, v, mask


def direct(q, k, v, mask, bias=None, scale=H**-0.5, softcap=np.inf):
    """Query head n reads key head n // (N / K), one query at a time."""
    out = np.zeros_like(q)
    for b, t, n in np.ndindex(B, T, N):
        kv = n // (N // K)
        logits = k[b, :, kv] @ q[b, t, n] * scale
        if softcap < np.inf:
            logits = softcap * np.tanh(logits / softcap)
        if bias is not None:
            logits = logits + bias[b % len(bias), n, t]
        weights = np.exp(logits - logits.max()) * mask[b, t]
        out[b, t, n] = weights @ v[b, :, kv] / weights.sum()
    return out


def test_grouped_heads_equal_a_direct_sum(inputs):
    np.testing.assert_allclose(attend(*inputs), direct(*inputs), atol=1e-6)


def test_without_a_mask_everything_is_seen(inputs):
    q, k, v, mask = inputs
    np.testing.assert_allclose(attend(q, k, v), direct(q, k, v, np.ones_like(mask)), atol=1e-6)


@pytest.mark.parametrize("rows", [1, B])
def test_bias_scale_and_softcap(inputs, rows):
    bias = np.random.default_rng(1).normal(size=(rows, N, T, S)).astype(np.float32)
    for how in ({"scale": 0.3}, {"scale": 0.9, "softcap": 0.5}):
        found = attend(*inputs, bias=jnp.asarray(bias), **how)
        np.testing.assert_allclose(found, direct(*inputs, bias=bias, **how), atol=1e-6)


@pytest.mark.parametrize("beams", [1, 2])
def test_rows_may_share_the_keys_that_come_first(inputs, beams):
    """As if each row had its own copy of them before its own keys."""
    q, k, v, mask = inputs
    rng = np.random.default_rng(1)
    prompt = rng.normal(size=(2, B // beams, 4, K, H)).astype(np.float32)
    mask = np.concatenate([rng.random((B, T, 4)) < 0.5, mask], axis=-1)
    bias = rng.normal(size=(B, N, T, 4 + S)).astype(np.float32)
    each = np.repeat(prompt, beams, axis=1)
    k_all, v_all = (np.concatenate(pair, axis=1) for pair in zip(each, (k, v), strict=True))
    found = attend(q, k, v, mask, bias=jnp.asarray(bias), prompt=tuple(map(jnp.asarray, prompt)))
    np.testing.assert_allclose(found, direct(q, k_all, v_all, mask, bias=bias), atol=1e-6)


def test_a_row_that_sees_nothing_gets_zero_and_finite_gradients(inputs):
    q, k, v, mask = inputs
    mask[0, 1] = False

    def total(q, k, v):
        return jnp.square(attend(q, k, v, mask)).sum()

    assert (np.asarray(attend(q, k, v, mask))[0, 1] == 0).all()
    for gradient in jax.grad(total, (0, 1, 2))(q, k, v):
        assert np.isfinite(gradient).all()
    assert (np.asarray(jax.grad(total)(q, k, v))[0, 1] == 0).all()


def test_softmax_is_float32_where_inputs_are_bfloat16():
    """512 keys alike: bfloat16 weights that were summed in bfloat16 would stop short of 1."""
    q, k = jnp.ones((1, 1, 1, H), jnp.bfloat16), jnp.ones((1, 512, 1, H), jnp.bfloat16)
    v = jnp.concatenate([jnp.ones_like(k[:, :384]), jnp.zeros_like(k[:, 384:])], axis=1)
    out = attend(q, k, v)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out, np.float32), 0.75, atol=2e-3)
