"""The chunked loss and its hand-made gradient against log_softmax and jax.grad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.train.losses import chunk_size, next_token_loss, next_token_targets

B, T, D, V, NEW = 2, 9, 6, 11, 2


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(B, T, D)).astype(np.float32)
    frozen, new = (rng.normal(size=(n, D)).astype(np.float32) for n in (V, NEW))
    tokens = rng.integers(0, V, (B, T)).astype(np.int32)
    tokens[0, [2, 7]], tokens[1, 5] = V, V + 1  # new tokens among the targets
    mask = rng.random((B, T)) < 0.6
    mask[0, [2, 7]] = mask[1, 5] = True
    return tuple(map(jnp.asarray, (hidden, frozen, new, tokens, mask)))


def plain(hidden, frozen, new, tokens, mask, cap=None):
    """All logits at once; row t predicts token t + 1."""
    logits = hidden @ jnp.concatenate([frozen, new]).T
    logits = logits if cap is None else cap * jnp.tanh(logits / cap)
    found = jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), tokens[:, 1:, None], -1)
    return -jnp.where(mask[:, 1:], found[..., 0], 0.0).sum()


def total(hidden, frozen, new, tokens, mask, **kwargs):
    return next_token_loss(hidden, frozen, new, *next_token_targets(tokens, mask), **kwargs)[0]


PLAIN = jax.jit(jax.value_and_grad(plain, (0, 2)), static_argnames="cap")
NAMES = "cap", "chunk_tokens", "shards"
TOTAL = jax.jit(jax.value_and_grad(total, (0, 2)), static_argnames=NAMES)


def test_targets_by_hand():
    tokens = jnp.array([[5, 6, 7]])
    targets, weights = next_token_targets(tokens, jnp.array([[True, False, True]]))
    assert targets[0, :2].tolist() == [6, 7]
    assert weights.tolist() == [[0.0, 1.0, 0.0]]  # the first token has nothing that predicts it


# 18 tokens, together or as two shards of 9: in chunks that divide them or not, and in one.
@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize(("chunk_tokens", "cap"), [(1, None), (4, 2.0), (9, None), (512, 2.0)])
def test_loss_and_gradients_equal_log_softmax(inputs, chunk_tokens, cap, shards):
    want, want_grads = PLAIN(*inputs, cap=cap)
    found, grads = TOTAL(*inputs, cap=cap, chunk_tokens=chunk_tokens, shards=shards)
    np.testing.assert_allclose(found, want, rtol=1e-6)
    for a, b in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.abs(grads[1]).min() > 1e-3  # both new rows learn


def test_without_gradient_the_loss_is_the_same(inputs):
    value = TOTAL(*inputs, chunk_tokens=4)[0]
    np.testing.assert_allclose(total(*inputs, chunk_tokens=4), value, rtol=1e-6)


@pytest.mark.parametrize("shards", [1, 2])
def test_each_loss_stands_where_its_token_does(inputs, shards):
    hidden, frozen, new, tokens, mask = inputs
    targets, weights = next_token_targets(tokens, mask)
    how = {"chunk_tokens": 4, "shards": shards}
    _, each = next_token_loss(hidden, frozen, new, targets, 3 * weights, **how)
    for row, column in zip(*np.nonzero(weights), strict=True):
        alone = np.zeros((B, T), bool)
        alone[row, column + 1] = True
        want = plain(hidden, frozen, new, tokens, alone)
        np.testing.assert_allclose(each[row, column], want, rtol=1e-6)


def test_scores_far_from_zero_overflow_nothing(inputs):
    hidden, *rest = inputs
    found, (grads, _) = TOTAL(1e4 * hidden, *rest)
    want, (want_grads, _) = PLAIN(1e4 * hidden, *rest)
    np.testing.assert_allclose(found, want, rtol=1e-6)
    np.testing.assert_allclose(grads, want_grads, atol=1e-5)


def test_a_chunk_is_a_quarter_of_the_tokens_but_neither_few_nor_many():
    assert [chunk_size(n) for n in (18, 128, 320, 1024, 100_000)] == [18, 64, 80, 256, 512]


def test_no_targets_at_all(inputs):
    *rest, mask = inputs
    nothing = np.zeros_like(mask)
    value, grads = TOTAL(*rest, nothing, chunk_tokens=4)
    assert value == 0
    for leaf in grads:
        np.testing.assert_array_equal(leaf, 0)


def test_the_gradient_is_scaled_by_what_comes_from_above(inputs):
    one = TOTAL(*inputs)[1][0]
    three = jax.jit(jax.grad(lambda h: 3 * total(h, *inputs[1:])))(inputs[0])
    np.testing.assert_allclose(three, 3 * one, rtol=1e-5, atol=1e-8)


def test_the_frozen_rows_get_no_gradient(inputs):
    assert (np.asarray(jax.jit(jax.grad(total, 1))(*inputs)) == 0).all()


def test_hidden_states_without_a_target_get_no_gradient(inputs):
    _, weights = next_token_targets(inputs[3], inputs[4])
    d_hidden = np.asarray(TOTAL(*inputs)[1][0])
    assert ((np.abs(d_hidden).max(-1) > 0) == (np.asarray(weights) > 0)).all()


def test_scores_are_float32_where_the_model_is_bfloat16(inputs):
    """Hidden states and frozen rows are bfloat16, the trained rows float32, as in a real run."""
    hidden, frozen, new, tokens, mask = inputs
    low = [x.astype(jnp.bfloat16) for x in (hidden, frozen, new)]
    want = plain(*(x.astype(jnp.float32) for x in low), tokens, mask)
    found, (d_hidden, d_new) = TOTAL(*low[:2], new, tokens, mask)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, want, rtol=1e-5)
    assert (d_hidden.dtype, d_new.dtype) == (jnp.bfloat16, jnp.float32)
