"""The contrastive objective: each picture nearest to its own text, each text to its own picture.

Paper: section 2.1 and appendix B.1.3, the loss that its vision encoder is trained with: two softmax
cross-entropies, text to image and image to text, over a batch of L2-normalised embeddings and a
learned inverse temperature. Differs: pairs of the same text are all right answers of each other (in
small data a batch holds several), and labels are not smoothed.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def contrastive_loss(
    pictures: Array,  # f32[N, D]
    texts: Array,  # f32[N, D]
    text_ids: Array,  # i32[N], equal where texts are
    inverse_temperature: Array,  # f32[]
) -> Array:
    """Sum of both directions' mean cross-entropies, in nats."""
    scores = inverse_temperature * normalize(pictures) @ normalize(texts).T
    right = jnp.where(text_ids[:, None] == text_ids[None], scores, -jnp.inf)

    def cross_entropy(axis: int) -> Array:
        return (jax.nn.logsumexp(scores, axis) - jax.nn.logsumexp(right, axis)).mean()

    return cross_entropy(0) + cross_entropy(1)


def normalize(x: Array) -> Array:
    """Rows of length 1; a row of zeros stays one."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))
