"""Scores of given text against a plain log_softmax of the logits."""

import jax
import numpy as np

from flamingo_jax.decode.score import token_log_probs
from flamingo_jax.models.flamingo import Flamingo
from tests import tiny_flamingo as tiny


def test_scores_are_log_softmax_of_the_token_before():
    params, batch = tiny.random_params(), tiny.random_batch()
    logits, found = tiny.jit(lambda m, b: (Flamingo.__call__(m, b), token_log_probs(m, b)))(
        params, batch
    )
    want = np.zeros(batch.tokens.shape)
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    for row, t in np.ndindex(*batch.tokens.shape):
        if t:
            want[row, t] = log_probs[row, t - 1, batch.tokens[row, t]]
    np.testing.assert_allclose(found, want, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(found)[:, 0], 0)
