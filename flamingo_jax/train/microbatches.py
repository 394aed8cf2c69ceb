"""A step's batches in parts that are worked through one after the other, their results added.

Activations then take the memory of one part. Not in the paper; what a step computes stays the same.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flamingo_jax.batch import Batch
from flamingo_jax.core import partition

Array = jax.Array
Tree = Any


def total(f: Callable[[dict[str, Batch]], Tree], batches: Mapping[str, Batch], num: int) -> Tree:
    """The sum of `f` over `num` equal parts of all batches; of one part, `f` of the batches."""
    if num == 1:
        return f(dict(batches))

    def of_part(i: Array) -> Tree:
        return f(jax.tree.map(lambda x: part(x, i, num), dict(batches)))

    def add(i: Array, before: Tree) -> Tree:
        return jax.tree.map(jnp.add, before, of_part(i))

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_part, 0))
    return jax.lax.fori_loop(0, num, add, zeros)


def part(
    x: Array,  # [B, ...], B a multiple of the batch's shards x `num`
    i: Array,  # i32[], below `num`
    num: int,
) -> Array:  # [B / num, ...]
    """Rows of part `i`: of every shard as many, so that none leaves the device that holds it."""
    shards = partition.batch_shards()
    size = len(x) // (shards * num)
    x = x.reshape(shards, num, size, *x.shape[1:])
    x = jax.lax.dynamic_index_in_dim(x, i, axis=1, keepdims=False)
    x = x.reshape(shards * size, *x.shape[2:])
    return partition.constrain(x, "batch", *[None] * (x.ndim - 1))
