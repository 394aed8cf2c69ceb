"""What a training step changes: the step count, trained parameters, optimizer state, random key.

Frozen parameters stand apart; they are arguments of the step, neither donated nor returned.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from flamingo_jax.core import hosts, partition

Tree = Any


class TrainState(NamedTuple):
    """One checkpoint's worth of arrays."""

    step: jax.Array  # i32[], updates done
    trainable: Tree
    opt_state: optax.OptState
    key: jax.Array  # raw u32 key data of the seed, for steps that draw; none does yet


def create(
    trainable: Tree, optimizer: optax.GradientTransformation, seed: int, mesh: Mesh
) -> TrainState:
    """The state before the first update; what is no copy of a parameter lies on every device."""
    everywhere = partition.replicated(mesh)

    def place(leaf: jax.Array) -> jax.Array:
        on_mesh = isinstance(leaf.sharding, NamedSharding)
        return leaf if on_mesh else hosts.place(leaf, everywhere)

    state = TrainState(
        jnp.zeros((), jnp.int32),
        trainable,
        optimizer.init(trainable),
        jax.random.key_data(jax.random.key(seed)),
    )
    return jax.tree.map(place, state)
