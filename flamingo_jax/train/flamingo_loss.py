"""A Flamingo's loss of tokens, whichever rows of its output embedding are trained."""

import jax
import jax.numpy as jnp

from flamingo_jax.core import partition
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.train.losses import next_token_loss
from flamingo_jax.train.token_loss import token_loss

Array = jax.Array


def flamingo_loss(
    model: Flamingo,
    hidden: Array,  # [B, T, D]
    targets: Array,  # i32[B, T], the token after each
    weights: Array,  # f32[B, T], 0 where none counts
) -> tuple[Array, Array]:
    """As of `next_token_loss`: the weighted sum, f32[], and each token's loss, f32[B, T], nats."""
    rows, new_rows = model.language_model.output_embedding, model.new_tokens.output_embedding
    how = {
        "cap": model.config.language_model.logits_softcap,
        "shards": partition.batch_shards(),
    }
    if "language_model" in model.config.trained:
        rows = jnp.concatenate([partition.gathered(rows, ("vocab", "embed")), new_rows])
        return token_loss(hidden, rows, targets, weights, **how)
    return next_token_loss(hidden, jax.lax.stop_gradient(rows), new_rows, targets, weights, **how)
