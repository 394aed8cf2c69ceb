"""The loss of a model that is trained whole: against all scores at once, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flamingo_jax.train.losses import next_token_targets
from flamingo_jax.train.token_loss import token_loss

B, T, D, V = 4, 12, 6, 11
RNG = np.random.default_rng(0)
HIDDEN = jnp.asarray(RNG.normal(size=(B, T, D)), jnp.float32)
ROWS = jnp.asarray(RNG.normal(size=(V, D)), jnp.float32)
TOKENS = jnp.asarray(RNG.integers(0, V, (B, T)), jnp.int32)
MASK = jnp.asarray(RNG.random((B, T)) < 0.6)
TARGETS = next_token_targets(TOKENS, MASK)


def direct(hidden, rows, cap):
    """Column t predicts token t + 1."""
    scores = hidden[:, :-1] @ rows.T
    scores = scores if cap is None else cap * jnp.tanh(scores / cap)
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, TOKENS[:, 1:])
    return (losses * MASK[:, 1:]).sum()


@pytest.mark.parametrize(
    ("shards", "chunk_tokens", "cap"), [(1, 512, None), (2, 512, 2.0), (1, 5, None)]
)
def test_loss_and_both_gradients_are_those_of_all_scores_at_once(shards, chunk_tokens, cap):
    def chunked(hidden, rows):
        split = {"shards": shards, "chunk_tokens": chunk_tokens}
        return token_loss(hidden, rows, *TARGETS, cap=cap, **split)[0]

    want, wanted = jax.value_and_grad(direct, (0, 1))(HIDDEN, ROWS, cap)
    found, grads = jax.value_and_grad(chunked, (0, 1))(HIDDEN, ROWS)
    np.testing.assert_allclose(found, want, rtol=1e-6)
    for grad, want_grad in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(grad, want_grad, atol=1e-5)


def test_each_loss_stands_where_its_token_does():
    total, each = token_loss(HIDDEN, ROWS, *TARGETS, shards=2, chunk_tokens=5)
    np.testing.assert_allclose((each * TARGETS[1]).sum(), total, rtol=1e-6)
    scores = jax.nn.log_softmax(HIDDEN @ ROWS.T)
    want = -jnp.take_along_axis(scores, TARGETS[0][..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(each, want, rtol=1e-5)
