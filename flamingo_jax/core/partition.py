"""Where arrays live: the mesh, one table from logical axis names to it, and constraints.

Axes of the mesh, from the slowest network to the fastest: `slice` is one TPU slice each, over the
data-centre network; `data` copies the frozen parameters; `fsdp` shards them; `tensor` cuts heads,
feed-forward and vocabulary (paper, section 2.4 and appendix B.1.2: Megatron-style model
parallelism, optimizer state sharded). The batch is cut over the first three. Trained parameters,
and with them gradients and optimizer state, are sharded over `data` too: they are few, so bringing
them together for use is cheap, and twelve bytes each are not kept twice in a slice.

Changing a layout means editing `RULES`, nothing else. docs/scaling.md says how to choose a mesh.
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flamingo_jax.core.params import is_trainable

Array = jax.Array
Tree = Any
Axes = tuple[str, ...]

MESH_AXES = ("slice", "data", "fsdp", "tensor")
BATCH = ("slice", "data", "fsdp")
RESIDUAL = ("batch", "sequence", None)  # logical axes of the residual stream [B, T, D]

RULES: dict[str, str | Axes | None] = {
    "batch": BATCH,
    "sequence": "tensor",  # of the residual stream between blocks, which nothing there mixes
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "embed": "fsdp",
    "trained_embed": ("data", "fsdp"),  # `embed` of a trained parameter
    # The frozen image encoder is whole on every device, as in the paper: F6 is 0.87 GB in bfloat16.
    # Pictures are shared out among all devices instead (`models.vision_shards`).
    "vision_channels": None,
    "vision_heads": None,
}

# Few and narrow: kept whole where the mesh does not divide them, instead of an error.
REPLICATE_IF_INDIVISIBLE = ("kv_heads",)
REPLICATE_TO_SERVE = ("kv_heads", "vocab")  # a small share of a large model's weights


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Any = None, *, slice: int = 1
) -> Mesh:
    """A mesh of all devices; one axis may be -1, which takes what the others leave.

    Raises:
      ValueError: the axes do not divide the devices, or the slices are others than there are.
    """
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes(data, fsdp, tensor, slice=slice, num_devices=len(devices))
    num_slices = num_slices_of(devices)
    if num_slices > 1 and sizes["slice"] != num_slices:
        raise ValueError(f"mesh.slice={sizes['slice']}: there are {num_slices} slices, so use that")
    types = (AxisType.Auto,) * len(MESH_AXES)
    return Mesh(_arrange(tuple(sizes.values()), devices, num_slices), MESH_AXES, axis_types=types)


def num_slices_of(devices: Sequence[Any]) -> int:
    """Of a TPU; on GPUs JAX calls every host a slice, and a mesh lies across hosts as it likes."""
    tpus = [device for device in devices if device.platform == "tpu"]
    return max(1, len({getattr(device, "slice_index", 0) or 0 for device in tpus}))


def mesh_sizes(
    data: int = -1, fsdp: int = 1, tensor: int = 1, *, slice: int = 1, num_devices: int | None
) -> dict[str, int]:
    """Sizes of the axes of `MESH_AXES`, none of them -1; without a number of devices the smallest.

    Raises:
      ValueError: the axes do not divide the devices.
    """
    sizes = {"slice": slice, "data": data, "fsdp": fsdp, "tensor": tensor}
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise ValueError(f"mesh={sizes}: sizes are 1 or more, and at most one axis is -1")
    known = math.prod(size for size in sizes.values() if size != -1)
    num_devices = known if num_devices is None else num_devices
    if not free and num_devices % known == 0 and known != num_devices:
        raise ValueError(
            f"mesh={sizes} uses {known} of {num_devices} devices: set data=-1 to use them all"
        )
    if num_devices % known:
        raise ValueError(
            f"mesh={sizes} does not divide {num_devices} devices: the fixed axes make {known}, "
            f"the nearest that divides is {_largest_divisor(num_devices, known)}; or take a "
            f"multiple of {known} devices"
        )
    if free:
        sizes[free[0]] = num_devices // known
    return sizes


def _arrange(shape: tuple[int, ...], devices: Any, num_slices: int) -> np.ndarray:
    """Devices so that neighbours on `tensor` are neighbours on the chip's network."""
    if num_slices > 1:
        inside, outside = (1, *shape[1:]), (num_slices, 1, 1, 1)
        return mesh_utils.create_hybrid_device_mesh(
            inside, outside, devices, allow_split_physical_axes=True
        )
    try:
        return mesh_utils.create_device_mesh(shape, devices)
    except NotImplementedError:  # no whole axes of the torus make these sizes, parts of them do
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)


def spec(axes: tuple[str | None, ...]) -> PartitionSpec:
    """Mesh axes of one array; ValueError where two dims would share one, or for no such axis."""
    if unknown := {*axes} - {*RULES, None}:
        raise ValueError(f"logical axes {sorted(unknown)}: RULES has {sorted(RULES)}")
    entries = [RULES[axis] if axis else None for axis in axes]
    used = [m for entry in entries for m in _names(entry)]
    if len(set(used)) < len(used):
        raise ValueError(f"logical axes {axes} map twice to one mesh axis: {entries}")
    return PartitionSpec(*entries)


def _names(entry: str | Axes | None) -> Axes:
    return () if entry is None else (entry,) if isinstance(entry, str) else entry


def _size(mesh: Any, entry: str | Axes | None) -> int:
    return int(np.prod([mesh.shape[axis] for axis in _names(entry)]))


def shardings(
    axes: Tree, shapes: Tree, mesh: Mesh, also: Collection[str] = (), *, training: bool = True
) -> Tree:
    """`NamedSharding` of every parameter, from its path, logical axes and shape.

    `also` names the frozen parts that are trained. Without `training` there is no optimizer state
    to share out, and trained parameters are laid out as frozen ones; a vocabulary that the mesh
    does not divide is left whole.

    Raises:
      ValueError: a dim that the mesh does not divide, by path, with the nearest size that works.
    """
    replicate = REPLICATE_IF_INDIVISIBLE if training else REPLICATE_TO_SERVE

    def one(path, shape, names):
        path = tuple(key.key for key in path)
        entries = list(spec(names))
        for dim, (size, name) in enumerate(zip(shape.shape, names, strict=True)):
            if name == "embed" and training and is_trainable(path, also):
                wide = RULES["trained_embed"]
                entries[dim] = wide if size % _size(mesh, wide) == 0 else entries[dim]
            need = _size(mesh, entries[dim])
            if size % need == 0:
                continue
            if name not in replicate:
                raise ValueError(
                    f"{'/'.join(path)}: dim {dim} ({name}) is {size}, which mesh axis "
                    f"{entries[dim]} of {need} does not divide: use {_largest_divisor(size, need)}"
                )
            entries[dim] = None
        return NamedSharding(mesh, PartitionSpec(*entries))

    return jax.tree_util.tree_map_with_path(one, shapes, axes)


def _largest_divisor(whole: int, limit: int) -> int:
    return max(n for n in range(1, limit + 1) if whole % n == 0)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are cut along their first dim, over `slice`, `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def batch_shards(mesh: Any = None) -> int:
    """In how many parts a batch is cut; of the mesh in context, without one 1."""
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    return 1 if mesh.empty else _size(mesh, RULES["batch"])


def check_batch(name: str, batch_size: int, mesh: Any, num_microbatches: int = 1) -> None:
    """ValueError, with the nearest size that works, where the mesh does not divide a batch.

    Of microbatches, every one is cut among the devices.
    """
    if num_microbatches < 1:
        raise ValueError(f"microbatches={num_microbatches}: use 1 or more")
    shards = batch_shards(mesh)
    parts = shards * num_microbatches
    if batch_size % parts:
        near = max(parts, round(batch_size / parts) * parts)
        times = f" x {num_microbatches} microbatches" if num_microbatches > 1 else ""
        raise ValueError(
            f"{name}.batch_size={batch_size} does not divide among {shards} devices "
            f"(slice x data x fsdp){times}: use {near}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def constrain(x: Array, *axes: str | None) -> Array:
    """Asks the compiler to lay out `x` as `cut` says; without a mesh, does nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.manual_axes:
        return x
    return jax.lax.with_sharding_constraint(x, cut(x.shape, axes, mesh))


def cut(shape: Sequence[int], axes: Sequence[str | None], mesh: Any) -> NamedSharding:
    """Of an array as its logical axes say; a dim that the mesh does not divide is left whole."""
    entries = [
        entry if size % _size(mesh, entry) == 0 else None
        for size, entry in zip(shape, spec(tuple(axes)), strict=True)
    ]
    return NamedSharding(mesh, PartitionSpec(*entries))


def gathered(kernel: Array, axes: tuple[str | None, ...]) -> Array:
    """A parameter brought together over `data` and `fsdp` for use, still cut over `tensor`.

    Without this the compiler may keep the weights cut and sum activations instead, which are more.
    """
    return constrain(kernel, *(None if axis == "embed" else axis for axis in axes))


def on_shards(f: Callable, in_axes: Sequence[tuple], out_axes: tuple) -> Callable:
    """`f` of each device's part of the arrays, cut as logical axes say; without a mesh, `f` itself.

    For what the compiler cannot cut by itself, such as hand-written kernels and lookups. An axis
    that the mesh does not divide in all arrays is left whole.
    """

    def call(*args: Array) -> Array:
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or mesh.manual_axes:
            return f(*args)
        whole = {
            axis
            for x, axes in zip(args, in_axes, strict=True)
            for axis, size in zip(axes, x.shape, strict=True)
            if axis and size % _size(mesh, RULES[axis])
        }
        specs = [spec(tuple(None if a in whole else a for a in axes)) for axes in in_axes]
        out = spec(tuple(None if a in whole else a for a in out_axes))
        return jax.shard_map(f, in_specs=tuple(specs), out_specs=out, check_vma=False)(*args)

    return call
