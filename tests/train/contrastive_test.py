"""The contrastive loss, by hand and against optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flamingo_jax.train.contrastive import contrastive_loss, normalize, text_ids


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


def test_smoothed_labels_give_all_of_the_batch_a_share():
    """Against optax, whose labels say the same: 0.9 and a tenth over all six alike."""
    rng = np.random.default_rng(0)
    pictures, texts = rng.normal(size=(2, 6, 4)).astype(np.float32)
    scores = 7 * normalize(pictures) @ normalize(texts).T
    labels = optax.smooth_labels(jnp.eye(6), 0.1)
    want = sum(optax.softmax_cross_entropy(s, labels).mean() for s in (scores, scores.T))
    ids = jnp.arange(6)
    found = contrastive_loss(pictures, texts, ids, jnp.float32(7), label_smoothing=0.1)
    np.testing.assert_allclose(found, want, rtol=1e-5)


def test_pairs_that_are_not_there_count_for_nothing():
    """Losses and gradients are those of the batch without them."""
    rng = np.random.default_rng(0)
    pictures, texts = rng.normal(size=(2, 5, 4)).astype(np.float32)
    mask, ids = jnp.array([True, False, True, True, False]), jnp.array([1, 1, 2, 3, 3])

    def loss(pictures, texts, ids, **kwargs):
        return contrastive_loss(pictures, texts, ids, 7.0, label_smoothing=0.1, **kwargs)

    found, grads = jax.value_and_grad(loss, (0, 1))(pictures, texts, ids, mask=mask)
    want, wanted = jax.value_and_grad(loss, (0, 1))(pictures[mask], texts[mask], ids[mask])
    np.testing.assert_allclose(found, want, rtol=1e-6)
    for grad, without in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(grad[mask], without, atol=1e-6)
        np.testing.assert_array_equal(grad[~mask], 0)


def test_texts_have_the_same_number_where_they_are_equal_alone():
    tokens = np.array([[5, 6, 0], [5, 6, 9], [6, 5, 0], [5, 6, 0], [0, 5, 6]], np.int32)
    mask = np.array([[1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]], bool)
    ids = np.asarray(text_ids(jnp.array(tokens), jnp.array(mask)))
    assert ids[0] == ids[1]  # padding is no part of it
    assert len({*ids[1:]}) == 4


def test_a_batch_without_any_pair_costs_nothing():
    """All of its records were bad: the step goes on, with a gradient of 0."""
    nowhere = jnp.zeros(3, bool)

    def loss(pictures):
        ids = jnp.arange(3)
        return contrastive_loss(pictures, jnp.eye(3), ids, 7.0, mask=nowhere, label_smoothing=0.1)

    value, grad = jax.value_and_grad(loss)(jnp.ones((3, 3)))
    assert value == 0
    np.testing.assert_array_equal(grad, 0)
