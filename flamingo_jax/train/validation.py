"""What a held-out batch costs with its own pictures, and with its neighbours' in their place.

The difference says whether the model looks at its pictures: while the gates are shut there is none.
Not in the paper, whose held-out scores are those of its benchmarks.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.batch import Batch
from flamingo_jax.core import partition
from flamingo_jax.train.state import TrainState
from flamingo_jax.train.step import batch_loss, encode_media, num_targets

Array = jax.Array
Tree = Any


def check_batch(name: str, batch_size: int, mesh: Any) -> None:
    """ValueError, with the nearest size that works, where a row has no neighbour on its device."""
    rows = 2 * partition.batch_shards(mesh)
    if batch_size % rows:
        near = max(rows, round(batch_size / rows) * rows)
        raise ValueError(
            f"{name}.batch_size={batch_size}: two rows that lie on one device exchange their "
            f"pictures, and there are {rows // 2} devices (slice x data x fsdp): use {near}"
        )


def right_and_other(
    graph: nnx.GraphDef, state: TrainState, frozen: Tree, batch: Batch
) -> tuple[Batch, Batch]:
    """The batch with its own pictures and with its neighbours', encoded once for both."""
    return other_pictures(encode_media(graph, state, frozen, {"": batch})[""])


def other_pictures(batch: Batch) -> tuple[Batch, Batch]:
    """The batch, and the same one with rows 0 and 1 showing each other's media, 2 and 3, and so on.

    A row shows as many as before: what its neighbour has is repeated from the first, or cut. So
    each token sees as much, and nothing of its own row. Where one of two rows has no media, as a
    record that cannot be used has none, neither is scored, in both batches. B is even; on a device
    that holds an even number of rows nothing crosses to another, whatever the mesh.
    """
    own, other = batch.media_mask.any(-1), _exchanged(batch.media_mask)
    there = other.any(-1)  # [B, M]
    count = jnp.maximum(there.sum(1, keepdims=True), 1)
    number = (jnp.cumsum(own, axis=1) - 1) % count  # which of the neighbour's a slot shows
    slot = jnp.take_along_axis(jnp.argsort(~there, axis=1, stable=True), number, axis=1)
    media = jnp.take_along_axis(_exchanged(batch.media), slot[:, :, None, None, None], axis=1)
    mask = jnp.take_along_axis(other, slot[:, :, None], axis=1) & own[..., None]
    scored = batch.loss_mask & (own.any(1) & there.any(1))[:, None]
    right = batch._replace(loss_mask=scored)
    return right, right._replace(media=media, media_mask=mask)


def _exchanged(x: Array) -> Array:  # [B, ...]
    """Rows 0 and 1 in each other's place, 2 and 3, and so on."""
    pairs = jnp.flip(x.reshape(len(x) // 2, 2, *x.shape[1:]), axis=1)
    return partition.constrain(pairs.reshape(x.shape), "batch", *[None] * (x.ndim - 1))


def total_loss(
    graph: nnx.GraphDef, state: TrainState, frozen: Tree, batch: Batch
) -> tuple[Array, Array]:
    """f32[] sums over the targets of a batch: of their losses as in training, and of ones."""
    one = jnp.ones((), jnp.float32)  # in the place of the number of targets: so it is a sum
    return batch_loss(graph, state.trainable, frozen, batch, one), num_targets({"": batch})[""]
