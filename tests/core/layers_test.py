"""Projections, norms and feed-forwards against their formulas in numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.core import op_count
from flamingo_jax.core.layers import (
    ACTIVATIONS,
    FeedForward,
    Norm,
    Projection,
    project,
    truncated_normal,
)
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import REMAT

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 8)).astype(np.float32)


def test_projection_maps_several_dims_at_once():
    split = Projection([8], [2, 4], ("embed", "heads", None), use_bias=True, rngs=Rngs(0))
    split.bias[...] = jnp.asarray(RNG.normal(size=(2, 4)), jnp.float32)
    kernel, bias = np.asarray(split.kernel[...]), np.asarray(split.bias[...])
    want = np.einsum("btd,dnh->btnh", X, kernel) + bias
    np.testing.assert_allclose(split(X), want, atol=1e-5)
    join = Projection([2, 4], [8], ("heads", None, "embed"), rngs=Rngs(0))
    want = np.einsum("btnh,nhd->btd", X.reshape(2, 3, 2, 4), np.asarray(join.kernel[...]))
    np.testing.assert_allclose(join(X.reshape(2, 3, 2, 4)), want, atol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), [([8], [2, 3]), ([2, 8], [3]), ([8], [8])])
def test_gradients_of_a_product_are_those_of_tensordot(inputs, outputs):
    x = jnp.asarray(RNG.normal(size=(2, 3, *inputs)), jnp.float32)
    kernel = jnp.asarray(RNG.normal(size=(*inputs, *outputs)), jnp.float32)
    n = len(inputs)

    def loss(product, x, kernel):
        return jnp.sin(product(x, kernel, n)).sum()

    want = jax.grad(loss, (1, 2))(jnp.tensordot, x, kernel)
    for found, right in zip(jax.grad(loss, (1, 2))(project, x, kernel), want, strict=True):
        np.testing.assert_allclose(found, right, atol=1e-5)


def test_what_is_frozen_costs_no_product_on_the_way_back():
    x, kernel = jnp.ones((3, 4)), jnp.ones((4, 5))

    def products(wanted):
        loss = jax.grad(lambda *args: project(*args, 1).sum(), wanted)
        return op_count.flops(loss, x, kernel) / (2 * 3 * 4 * 5)

    assert (products(0), products(1), products((0, 1))) == (2, 2, 3)


def test_remat_that_keeps_products_keeps_this_one():
    x, kernel = jnp.ones((3, 4)), jnp.ones((4, 5))

    def products(policy):
        f = jax.checkpoint(lambda *args: jnp.sin(project(*args, 1)).sum(), policy=policy)
        return op_count.flops(jax.grad(f, (0, 1)), x, kernel) / (2 * 3 * 4 * 5)

    assert products(REMAT["dots"]) == 3
    assert products(REMAT["full"]) == 4


def test_layernorm_and_rmsnorm():
    scale, bias = RNG.normal(size=(2, 8)).astype(np.float32)
    layer, rms = Norm(8, eps=1e-3), Norm(8, "rmsnorm", eps=1e-3)
    layer.scale[...], layer.bias[...], rms.scale[...] = scale, bias, scale
    centred = X - X.mean(-1, keepdims=True)
    want = centred / np.sqrt(X.var(-1, keepdims=True) + 1e-3) * scale + bias
    np.testing.assert_allclose(layer(X), want, atol=1e-5)
    want = X / np.sqrt(np.square(X).mean(-1, keepdims=True) + 1e-3) * scale
    np.testing.assert_allclose(rms(X), want, atol=1e-5)
    assert rms.bias is None
    assert Norm(8, bias=False).bias is None


def test_norm_statistics_are_float32():
    """Around 1,000, bfloat16 knows steps of 4 only: a bfloat16 mean would be off by whole steps."""
    x = jnp.asarray(1000 + 8.0 * np.arange(8)[None], jnp.bfloat16)
    want = np.asarray(Norm(8)(x.astype(jnp.float32)))
    np.testing.assert_allclose(np.asarray(Norm(8)(x), np.float32), want, atol=1e-2)


@pytest.mark.parametrize("gated", [False, True])
def test_feed_forward(gated):
    ffw = FeedForward(8, 12, "silu", gated=gated, rngs=Rngs(0))
    up = X @ np.asarray(ffw.up.kernel[...])
    gate = X @ np.asarray(ffw.gate.kernel[...]) if gated else up
    hidden = gate / (1 + np.exp(-gate)) * (up if gated else 1)
    np.testing.assert_allclose(ffw(X), hidden @ np.asarray(ffw.down.kernel[...]), atol=1e-5)


def test_activations_by_hand():
    x = jnp.asarray([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(ACTIVATIONS["squared_relu"](x), [0, 0, 4])
    erf = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in (-1.0, 0.0, 2.0)]
    np.testing.assert_allclose(ACTIVATIONS["gelu"](x), erf, atol=1e-6)
    assert abs(float(ACTIVATIONS["gelu_tanh"](x)[0]) - erf[0]) > 1e-5  # the other formula


def test_initial_deviation_is_that_of_the_fan_in():
    drawn = np.asarray(truncated_normal(Rngs(0), (400, 100), fan_in=400))
    assert abs(drawn.std() * math.sqrt(400) - 1) < 0.02
    assert abs(drawn).max() <= 2 / (0.8796 * math.sqrt(400))
