"""Logits that stay below a bound, of attention and of the vocabulary (Gemma 2)."""

import jax
import jax.numpy as jnp

Array = jax.Array


def softcap(
    logits: Array,  # f32[...]
    cap: float | None,  # None: no bound
) -> Array:
    """`cap` times tanh of logits over `cap`: small ones as they are, none beyond +-`cap`."""
    return logits if cap is None else cap * jnp.tanh(logits / cap)
