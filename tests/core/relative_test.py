"""Transformer-XL positions against a direct sum written from their definition."""

import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core.attention import attend
from flamingo_jax.core.relative import Relative, shift, sinusoids
from flamingo_jax.core.rngs import Rngs

WIDTH, HEADS, HEAD_DIM, BATCH, SLOTS = 12, 3, 4, 2, 9

CONFIG = LanguageModelConfig(
    vocab_size=5,
    num_layers=1,
    width=WIDTH,
    num_heads=HEADS,
    head_dim=HEAD_DIM,
    ffw_width=8,
    positions="relative",
)


@pytest.fixture
def layer():
    """One layer's module, with biases that are not zero."""
    module = Relative(CONFIG, rngs=Rngs(0))
    rng = np.random.default_rng(1)
    for bias in (module.content_bias, module.position_bias):
        bias[...] = jnp.asarray(rng.normal(size=bias.shape), jnp.float32)
    return module


def direct(layer, q, k, v, positions, slots, mask):
    """Attention of each query as a sum over its keys, in float64."""
    w = np.asarray(layer.key.kernel[...], np.float64)
    content, position = (
        np.asarray(b[...], np.float64) for b in (layer.content_bias, layer.position_bias)
    )
    out = np.zeros(q.shape)
    for b, i, n in np.ndindex(q.shape[:3]):
        logits = {}
        for j in np.flatnonzero(mask[b, i]):
            distance = positions[b, i] - slots[b, j]
            angle = distance / 10_000 ** (np.arange(0, WIDTH, 2) / WIDTH)
            r = np.concatenate([np.sin(angle), np.cos(angle)])
            logit = (q[b, i, n] + content[n]) @ k[b, j, n]
            logit += (q[b, i, n] + position[n]) @ (r @ w[:, n])
            logits[j] = np.exp(logit / np.sqrt(HEAD_DIM))
        total = sum(logits.values())
        for j, weight in logits.items():
            out[b, i, n] += weight / total * v[b, j, n]
    return out


def compare(layer, slot_mask, num_queries):
    """Largest difference from `direct` of the last `num_queries` positions of a sequence."""
    rng = np.random.default_rng(2)
    q, k, v = rng.normal(size=(3, BATCH, SLOTS, HEADS, HEAD_DIM))
    first = SLOTS - num_queries
    slots = np.maximum(np.cumsum(slot_mask, 1) - 1, 0)
    mask = np.tril(np.ones((SLOTS, SLOTS), bool)) & slot_mask[:, None]
    q, positions, mask = q[:, first:], slots[:, first:], mask[:, first:]
    want = direct(layer, q, k, v, positions, slots, mask)
    shared = layer.shared(CONFIG, jnp.asarray(positions), jnp.asarray(slots))
    q, k, v = (jnp.asarray(x, jnp.float32) for x in (q, k, v))
    q, k, bias = layer(q, k, shared)
    have = attend(q, k, v, jnp.asarray(mask), bias=bias)
    real = slot_mask[:, first:]
    return np.abs(want - np.asarray(have))[real].max()


def slot_masks():
    whole, left, right, gap = np.ones((4, BATCH, SLOTS), bool)
    left[0, :4] = False
    right[1, 6:] = False
    gap[0, 2:5] = False
    return {"whole": whole, "left": left, "right": right, "gap": gap}


@pytest.mark.parametrize("padding", ["whole", "left", "right"])
def test_whole_sequence_equals_the_direct_sum(layer, padding):
    assert compare(layer, slot_masks()[padding], SLOTS) < 1e-5


@pytest.mark.parametrize("padding", ["whole", "left", "right", "gap"])
@pytest.mark.parametrize("num_queries", [1, 4])
def test_few_queries_equal_the_direct_sum(layer, padding, num_queries):
    mask = slot_masks()[padding]
    assert compare(layer, mask, num_queries) < 1e-5


def test_shift_aligns_each_row_with_its_diagonal():
    by_distance = jnp.asarray([[2, 1, 0], [12, 11, 10], [22, 21, 20]])  # row, then distance
    shifted = np.asarray(shift(by_distance))
    assert np.tril(shifted).tolist() == [[0, 0, 0], [11, 10, 0], [22, 21, 20]]


def test_sinusoids_by_hand():
    assert sinusoids(jnp.asarray([0]), 4).tolist() == [[0, 0, 1, 1]]
    waves = np.asarray(sinusoids(jnp.asarray([3]), 4))[0]
    np.testing.assert_allclose(waves, [np.sin(3), np.sin(0.03), np.cos(3), np.cos(0.03)], rtol=1e-6)
