"""Parameters in a safetensors file, as others may read it, written a piece at a time.

The package safetensors writes what lies in memory, all of it; a language model that is read layer
by layer (`layer_stack`) does not. So the container is written here: the length of the header in
eight bytes, the header, JSON of names, types, shapes and places, and the numbers.
"""

import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from flamingo_jax.weights.files import checkpoint_files

Tree = dict[str, Any]

_NAMES = {np.dtype(dtype): name for name, dtype in checkpoint_files.DTYPES.items()}
_PIECE = 1 << 27  # numbers in memory at a time


def save(
    path: pathlib.Path,
    tree: Tree,  # leaves: arrays, or what has shape, dtype and indices as they have
    dtype: Any = None,
    tick: Callable[[int], object] = lambda num_bytes: None,
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes the leaves of nested dicts under their paths, `a/b/c`; None: in their own dtypes.

    Numbers are in C's order, however kernels from other frameworks lie in memory. `tick` is called
    with the number of bytes that were written just now. `metadata` is what the header says beside.
    """
    leaves = traverse_util.flatten_dict(tree, sep="/")
    dtypes = {name: np.dtype(dtype or leaf.dtype) for name, leaf in leaves.items()}
    names = sorted(leaves, key=lambda name: (-dtypes[name].itemsize, name))  # all aligned
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        start, shape = end, leaves[name].shape
        end += math.prod(shape) * dtypes[name].itemsize
        header[name] = {
            "dtype": _NAMES[dtypes[name]],
            "shape": list(shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for piece in _pieces(leaves[name]):
                data = np.ravel(np.asarray(piece, dtypes[name])).view(np.uint8)
                file.write(data)
                tick(len(data))


def _pieces(leaf: Any) -> Iterator[Any]:
    """The leaf in parts that follow each other in C's order."""
    axis = 0
    while axis < len(leaf.shape) - 1 and math.prod(leaf.shape[axis + 1 :]) > _PIECE:
        axis += 1
    if math.prod(leaf.shape) <= _PIECE:
        yield leaf
        return
    step = max(1, _PIECE // math.prod(leaf.shape[axis + 1 :]))
    for index in np.ndindex(*leaf.shape[:axis]):
        for start in range(0, leaf.shape[axis], step):
            yield leaf[(*index, slice(start, start + step))]
