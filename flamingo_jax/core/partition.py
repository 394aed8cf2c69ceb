"""Where arrays live: the mesh, one table from logical axis names to it, and constraints.

Axes of the mesh: `data` copies the parameters, `fsdp` shards them and the batch, `tensor` cuts
heads, feed-forward and vocabulary (paper, section 2.4 and appendix B.1.2: Megatron-style model
parallelism, optimizer state sharded). Changing a layout means editing `RULES`, nothing else.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Array = jax.Array
Tree = Any

MESH_AXES = ("data", "fsdp", "tensor")

RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "embed": "fsdp",
    # The frozen image encoder is whole on every device, as in the paper: F6 is 0.87 GB in bfloat16,
    # and its channels and heads seldom divide by what suits the language model.
    "vision_channels": None,
    "vision_heads": None,
}

# Few and narrow: kept whole where the mesh does not divide them, instead of an error.
REPLICATE_IF_INDIVISIBLE = ("kv_heads",)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Any = None) -> Mesh:
    """A mesh of all devices; one axis may be -1, which takes what the others leave.

    Raises:
      ValueError: the axes do not divide the devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    known = int(np.prod([size for size in sizes.values() if size != -1]))
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise ValueError(f"mesh={sizes}: sizes are 1 or more, and at most one axis is -1")
    if not free and len(devices) % known == 0 and known != len(devices):
        raise ValueError(
            f"mesh={sizes} uses {known} of {len(devices)} devices: set data=-1 to use them all"
        )
    if len(devices) % known:
        nearest = max(n for n in range(1, known + 1) if len(devices) % n == 0)
        raise ValueError(
            f"mesh={sizes} does not divide {len(devices)} devices: the fixed axes make {known}, "
            f"the nearest that divides is {nearest}"
        )
    if free:
        sizes[free[0]] = len(devices) // known
    return jax.make_mesh(
        tuple(sizes.values()), MESH_AXES, (AxisType.Auto,) * len(MESH_AXES), devices=devices
    )


def spec(axes: tuple[str | None, ...]) -> PartitionSpec:
    """Mesh axes of one array; ValueError where two dims would share one."""
    entries = [RULES.get(axis) if axis else None for axis in axes]
    used = [
        m for entry in entries if entry for m in (entry if isinstance(entry, tuple) else (entry,))
    ]
    if len(set(used)) < len(used):
        raise ValueError(f"logical axes {axes} map twice to one mesh axis: {entries}")
    return PartitionSpec(*entries)


def shardings(axes: Tree, shapes: Tree, mesh: Mesh) -> Tree:
    """`NamedSharding` of every leaf, from its logical axes and shape.

    Raises:
      ValueError: a dim that the mesh does not divide, by path, with the nearest size that works.
    """

    def one(path, shape, names):
        entries = list(spec(names))
        for dim, (entry, name) in enumerate(zip(entries, names, strict=True)):
            if entry is None:
                continue
            size = int(np.prod([mesh.shape[a] for a in np.atleast_1d(entry)]))
            if shape.shape[dim] % size == 0:
                continue
            if name not in REPLICATE_IF_INDIVISIBLE:
                where = "/".join(key.key for key in path)
                raise ValueError(
                    f"{where}: dim {dim} ({name}) is {shape.shape[dim]}, which mesh axis {entry} "
                    f"of {size} does not divide: use {_largest_divisor(shape.shape[dim], size)}"
                )
            entries[dim] = None
        return NamedSharding(mesh, PartitionSpec(*entries))

    return jax.tree_util.tree_map_with_path(one, shapes, axes)


def _largest_divisor(whole: int, limit: int) -> int:
    return max(n for n in range(1, limit + 1) if whole % n == 0)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are cut along their first dim, over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


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
    parts = int(np.prod([mesh.shape[axis] for axis in RULES["batch"]]))
    rows: dict[int, set[int]] = {}
    for device, index in batch_sharding(mesh).devices_indices_map((parts,)).items():
        rows.setdefault(process_of(device), set()).add(index[0].start or 0)
    shares = sorted({tuple(sorted(held)) for held in rows.values()})
    if len({len(share) for share in shares}) > 1 or sum(map(len, shares)) != parts:
        raise ValueError(
            f"mesh={dict(mesh.shape)} on {len(rows)} processes: their rows of a batch overlap in "
            "part; choose tensor so that it divides a process's devices, or is a multiple of them"
        )
    return shares.index(tuple(sorted(rows[here]))), len(shares)


def place(tree: Tree, where: Tree) -> Tree:
    """The arrays of a tree that every process holds whole, cut as the shardings `where` say.

    `where` is one sharding, or a tree of them. Nothing is sent from process to process.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, where)
    where = where if not isinstance(where, NamedSharding) else jax.tree.map(lambda _: where, tree)

    def one(leaf, sharding):
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(one, tree, where)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def constrain(x: Array, *axes: str | None) -> Array:
    """Asks the compiler to lay out `x` as its logical axes say; without a mesh, does nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec(axes)))
