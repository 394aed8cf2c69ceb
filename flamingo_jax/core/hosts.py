"""Arrays of several processes: which rows of a batch a process reads, and what it brings.

Each process sees its own devices alone, but every array is one over all of them. A process gives
the parts that its own devices hold; nothing is sent to another.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental.layout import Format
from jax.sharding import Mesh, NamedSharding

from flamingo_jax.core import partition

Tree = Any


def batch_share(
    mesh: Mesh, process_of: Callable[[Any], int] | None = None, here: int | None = None
) -> tuple[int, int]:
    """(index, count): batches are read in `count` shares, of which this process reads one.

    Processes that hold the same rows, cut along `tensor`, read the same share. `process_of` a
    device and `here` are JAX's unless a test says otherwise.

    Raises:
      ValueError: the processes' rows overlap without being the same.
    """
    process_of = process_of or (lambda device: device.process_index)
    here = jax.process_index() if here is None else here
    parts = int(np.prod([mesh.shape[axis] for axis in np.atleast_1d(partition.RULES["batch"])]))
    rows: dict[int, set[int]] = {}
    for device, index in partition.batch_sharding(mesh).devices_indices_map((parts,)).items():
        rows.setdefault(process_of(device), set()).add(index[0].start or 0)
    shares = sorted({tuple(sorted(held)) for held in rows.values()})
    if len({len(share) for share in shares}) > 1 or sum(map(len, shares)) != parts:
        raise ValueError(
            f"mesh={dict(mesh.shape)} on {len(rows)} processes: their rows of a batch overlap in "
            "part; choose tensor so that it divides a process's devices, or is a multiple of them"
        )
    return shares.index(tuple(sorted(rows[here]))), len(shares)


def place(tree: Tree, where: Tree, dtype: Any = None) -> Tree:
    """Arrays that every process holds or can read whole, cut as the shardings `where` say.

    `where` is one sharding, or a tree of them and of `Format`s, which say too how dims lie in
    memory; `dtype` is one, or a tree. Leaves need only a shape and indices: of a stack of
    layers in files (`layer_stack`) each process reads what its devices hold, or all where that
    takes as long, one parameter after the other, so no host ever has the model.
    """
    where = where if not isinstance(where, NamedSharding) else jax.tree.map(lambda _: where, tree)
    dtypes = dtype if isinstance(dtype, dict) else jax.tree.map(lambda _: dtype, tree)

    def one(leaf, there, dtype):
        if isinstance(leaf, jax.Array):
            leaf = leaf if dtype is None else leaf.astype(dtype)
            if _lies(leaf, there):
                return leaf
            if jax.process_count() == 1:
                return jax.device_put(leaf, there)
            if not leaf.is_fully_addressable:  # cut otherwise, among the same processes
                return jax.jit(lambda x: x, out_shardings=there)(leaf)
            leaf = np.asarray(leaf)
        if getattr(leaf, "reads_whole", False):
            leaf = np.asarray(leaf)
        parts: dict[str, np.ndarray] = {}  # devices that hold the same part share one reading

        def part(index):
            key = str(index)
            if key not in parts:
                parts[key] = np.asarray(leaf[index], leaf.dtype if dtype is None else dtype)
            return parts[key]

        return jax.make_array_from_callback(leaf.shape, there, part)

    return jax.tree.map(one, tree, where, dtypes)


def _lies(leaf: jax.Array, there: NamedSharding | Format) -> bool:
    if not isinstance(there, Format):
        return leaf.sharding == there
    order = leaf.format.layout.major_to_minor
    return leaf.sharding == there.sharding and order == there.layout.major_to_minor


def place_rows(batches: Tree, mesh: Mesh) -> Tree:
    """Batches of all processes' rows, each bringing those of its share, cut among the devices."""
    return jax.make_array_from_process_local_data(partition.batch_sharding(mesh), batches)
