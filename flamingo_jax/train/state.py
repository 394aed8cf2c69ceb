"""What a training step changes: the step count, trained parameters, optimizer state, random key.

Frozen parameters stand apart; they are arguments of the step, neither donated nor returned.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Tree = Any


class TrainState(NamedTuple):
    """One checkpoint's worth of arrays."""

    step: jax.Array  # i32[], updates done
    trainable: Tree
    opt_state: optax.OptState
    key: jax.Array  # raw u32 key data; the step folds its count in


def create(trainable: Tree, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first update."""
    return TrainState(
        jnp.zeros((), jnp.int32),
        trainable,
        optimizer.init(trainable),
        jax.random.key_data(jax.random.key(seed)),
    )
