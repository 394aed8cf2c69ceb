"""The contrastive objective: each picture nearest to its own text, each text to its own picture.

Paper: section 2.1 and appendix B.1.3, the loss that its vision encoder is trained with: two softmax
cross-entropies, text to image and image to text, over a batch of L2-normalised embeddings and a
learned inverse temperature, labels smoothed. Differs: pairs of the same text are all right answers
of each other (in small data a batch holds several).
"""

import jax
import jax.numpy as jnp

from flamingo_jax.core.partition import constrain

Array = jax.Array

_NOWHERE = -1e9  # score of what is not there; finite, so that its row has a gradient of 0


def contrastive_loss(
    pictures: Array,  # f32[N, D]
    texts: Array,  # f32[N, D]
    text_ids: Array,  # int[N], equal where texts are
    inverse_temperature: Array,  # f32[]
    *,
    mask: Array | None = None,  # bool[N], False where there is no pair; None: everywhere
    label_smoothing: float = 0.0,  # the share of a label that goes to all of the batch alike
) -> Array:
    """Sum of both directions' mean cross-entropies, in nats."""
    scores = pair_scores(pictures, texts, inverse_temperature, mask)
    right = jnp.where(text_ids[:, None] == text_ids[None], scores, -jnp.inf)
    there = jnp.ones(len(scores), bool) if mask is None else mask

    def cross_entropy(axis: int) -> Array:
        missed = jax.nn.logsumexp(scores, axis) - jax.nn.logsumexp(right, axis)
        if label_smoothing:
            mean = mean_where(scores, jnp.expand_dims(there, 1 - axis), axis)
            all_alike = jax.nn.logsumexp(scores, axis) - mean
            missed = (1 - label_smoothing) * missed + label_smoothing * all_alike
        return missed.mean() if mask is None else mean_where(missed, mask)

    return cross_entropy(0) + cross_entropy(1)


def mean_where(x: Array, mask: Array, axis: int | None = None) -> Array:
    """The mean of what the mask is True of; 0, not NaN, of nothing."""
    mask = jnp.broadcast_to(mask, x.shape)
    return jnp.sum(x, axis, where=mask) / jnp.maximum(jnp.sum(mask, axis), 1)


def pair_scores(
    pictures: Array,  # f32[N, D]
    texts: Array,  # f32[N, D]
    inverse_temperature: Array | float = 1.0,  # f32[]
    mask: Array | None = None,  # bool[N]
) -> Array:  # f32[N, N], pictures down, texts across
    """Scaled cosines; of a mesh, each device has its own pictures' with all texts."""
    texts = constrain(normalize(texts), None, None)
    scores = inverse_temperature * normalize(pictures) @ texts.T
    scores = constrain(scores, "batch", None)
    return scores if mask is None else jnp.where(mask[:, None] & mask, scores, _NOWHERE)


def text_ids(
    tokens: Array,  # i32[N, T]
    mask: Array,  # bool[N, T], False on padding
) -> Array:  # u32[N]
    """A number for each text: equal for equal texts, and else different but by rare chance."""
    powers = jnp.cumprod(jnp.full(tokens.shape[1], 0x9E3779B1, jnp.uint32))  # odd, wraps around
    return jnp.sum(jnp.where(mask, tokens.astype(jnp.uint32) + 1, 0) * powers, axis=1)


def normalize(x: Array) -> Array:
    """Rows of length 1; a row of zeros stays one."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))
