"""The contrastive loss, by hand and against optax."""

import jax.numpy as jnp
import numpy as np
import optax

from flamingo_jax.train.contrastive import contrastive_loss, normalize


def test_two_pairs_by_hand():
    """Orthogonal pairs at inverse temperature 2: each softmax holds exp(2) and 1."""
    found = contrastive_loss(jnp.eye(2) * 3, jnp.eye(2) * 5, jnp.arange(2), jnp.float32(2))
    np.testing.assert_allclose(found, 2 * np.log1p(np.exp(-2)), rtol=1e-6)


def test_different_texts_give_both_softmax_cross_entropies():
    rng = np.random.default_rng(0)
    pictures, texts = rng.normal(size=(2, 6, 4)).astype(np.float32)
    scores = 7 * normalize(pictures) @ normalize(texts).T
    want = sum(
        optax.softmax_cross_entropy_with_integer_labels(s, jnp.arange(6)).mean()
        for s in (scores, scores.T)
    )
    found = contrastive_loss(pictures, texts, jnp.arange(6), jnp.float32(7))
    np.testing.assert_allclose(found, want, rtol=1e-5)


def test_equal_texts_are_right_answers_of_each_other():
    """Two pictures of one text cost no more than their text's two copies share."""
    pictures = jnp.array([[1.0, 0], [1, 0], [0, 1]])
    ids = jnp.array([4, 4, 9])
    found = contrastive_loss(pictures, pictures, ids, jnp.float32(50))
    np.testing.assert_allclose(found, 0, atol=1e-6)
    apart = contrastive_loss(pictures, pictures, jnp.arange(3), jnp.float32(50))
    np.testing.assert_allclose(apart, 2 * 2 / 3 * np.log(2), rtol=1e-5)


def test_a_row_of_zeros_gives_no_nan():
    assert np.isfinite(contrastive_loss(jnp.zeros((2, 3)), jnp.eye(3)[:2], jnp.arange(2), 1.0))
