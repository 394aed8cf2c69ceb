"""A finished model on several devices: how its weights lie, and how calls run there.

Weights lie by the one table of `core.partition`, as in training; the mesh to choose is another. In
training frozen kernels are cut over `fsdp` and brought together at each use, for thousands of
tokens. A step of decoding has a token a row: bringing weights together would take far longer than
reading them. So a mesh that serves cuts them over `tensor` alone, where every device reads its own
part and what travels is a few activations, and copies them over `data`, where prompts are shared
out. Trained parameters are copied there too: there is no optimizer state to share. Of them most are
kept as they are computed with, not in float32 (`dtypes`).

Rows of a call are cut over the batch's axes, keys and values of text and media also by heads, and
logits by vocabulary. All processes run the same calls, and all have the answers.

The paper does not say how it served its models; all of this is our choice.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh

from flamingo_jax.config import DTypePolicy, FlamingoConfig
from flamingo_jax.core import hosts, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.flamingo import Flamingo

Tree = Any
_HEADS_FIRST = ("tpu",)  # platforms
_LANES = 128  # the last dim of its tiles
_HEADS = ("heads", "kv_heads", "vision_heads")  # logical axes
MAX_SHARE = 0.5  # of a device's memory for weights; the rest is for caches and what is computed


def shardings(config: FlamingoConfig, mesh: Mesh) -> Tree:
    """Of all parameters of a finished model, in the scanned layout.

    Raises:
      ValueError: a width or a number of heads that the mesh does not divide, with what would do.
    """
    return partition.shardings(*_abstract(config), mesh, training=False)


def formats(config: FlamingoConfig, mesh: Mesh) -> Tree:
    """`shardings`, on a TPU with the order in which dims of kernels to heads lie in memory.

    It multiplies tiles of the last two dims. Of a kernel [.., D, heads, H] as it is written those
    are heads and H, and the compiler copies the whole kernel with every call. So each head's [D, H]
    lies together; or its [H, D], where H fills no tiles of 128.
    """
    axes, shapes = _abstract(config)
    where = shardings(config, mesh)
    if mesh.devices.flat[0].platform not in _HEADS_FIRST:
        return where

    def one(path, shape, sharding, names):
        if path[-1].key != "kernel" or names[-2] not in _HEADS:
            return sharding
        *lead, inputs, heads, dims = range(shape.ndim)
        last = (inputs, dims) if shape.shape[-1] % _LANES == 0 else (dims, inputs)
        return Format(Layout((*lead, heads, *last)), sharding)

    return jax.tree_util.tree_map_with_path(one, shapes, where, axes)


def dtypes(config: FlamingoConfig, policy: DTypePolicy) -> Tree:
    """What each parameter of a model that is asked is kept in.

    Kernels that were trained, nearly all of what was, are cast to the dtype of computing where they
    are used (`core.layers.Projection`), so here they are cast once, to the same answers. Norms and
    gates are computed in float32, and of some encoders the kernels are too.
    """
    _, shapes = _abstract(config)
    narrower = min(policy.trainable, policy.compute, key=lambda dtype: jnp.dtype(dtype).itemsize)

    def one(path, _):
        path = tuple(key.key for key in path)
        if not params_lib.is_trainable(path, config.trained):
            return policy.frozen
        is_cast = path[-1] == "kernel" and path[0] != "vision"
        return narrower if is_cast else policy.trainable

    return jax.tree_util.tree_map_with_path(one, shapes)


def place(params: Tree, config: FlamingoConfig, mesh: Mesh | None) -> Tree:
    """Parameters on their devices once, not with every call; ValueError as `shardings`."""
    if mesh is None:
        return jax.device_put(params)
    return hosts.place(params, formats(config, mesh))


@functools.lru_cache(maxsize=4)
def _abstract(config: FlamingoConfig) -> tuple[Tree, Tree]:
    """Logical axes and shapes of all parameters."""
    make = lambda rngs: Flamingo(config, Execution(), rngs=rngs)  # noqa: E731
    _, shapes, axes = params_lib.abstract(make)
    return axes, shapes


def make_mesh(
    config: FlamingoConfig,
    policy: DTypePolicy,
    devices: Sequence[Any],
    memory: float | None,  # bytes of the device that has least; None: not known
) -> Mesh:
    """All devices: as few on `tensor` as hold the weights in half of their memory, others `data`.

    Where none are enough, as many as divide the model; without known memory one.

    Raises:
      ValueError: of several slices, as `partition.make_mesh`.
    """
    num_slices = partition.num_slices_of(devices)
    inside = len(devices) // num_slices
    best = None
    for tensor in (n for n in range(1, inside + 1) if inside % n == 0):
        mesh = partition.make_mesh(tensor=tensor, slice=num_slices, devices=devices)
        try:
            held = bytes_a_device(config, policy, mesh)
        except ValueError:  # it does not divide the model
            continue
        best = mesh
        if memory is None or held <= MAX_SHARE * memory:
            break
    return best


def bytes_a_device(config: FlamingoConfig, policy: DTypePolicy, mesh: Mesh) -> int:
    """Of the parameters that a device of the mesh holds; ValueError as `shardings`."""
    _, shapes = _abstract(config)

    def held(shape, where, dtype):
        return math.prod(where.shard_shape(shape.shape)) * jnp.dtype(dtype).itemsize

    each = jax.tree.map(held, shapes, shardings(config, mesh), dtypes(config, policy))
    return sum(jax.tree.leaves(each))


def cache_cut(config: FlamingoConfig, mesh: Mesh | None) -> int:
    """Among how many devices the keys and values of a row are cut."""
    tensor = 1 if mesh is None else mesh.shape["tensor"]
    return tensor if config.language_model.kv_heads % tensor == 0 else 1


def program(f: Callable, mesh: Mesh | None) -> Callable:
    """`f(params, *rows)` compiled; on a mesh its rows are cut among the devices.

    Rows are trees of numpy arrays, the same in all processes: those of a batch, whose number the
    mesh divides, and scalars. What comes back lies whole everywhere.
    """
    if mesh is None:
        return jax.jit(f)
    compiled = jax.jit(f, out_shardings=partition.replicated(mesh))
    cut, whole = partition.batch_sharding(mesh), partition.replicated(mesh)

    def call(params: Tree, *rows: Tree) -> Tree:
        where = jax.tree.map(lambda x: cut if np.ndim(x) else whole, rows)
        with jax.set_mesh(mesh):
            return compiled(params, *hosts.place(jax.tree.map(np.asarray, rows), where))

    return call
