"""Parameters in a safetensors file, as others may read it."""

import os
import pathlib
from typing import Any

import numpy as np
import safetensors.numpy
from flax import traverse_util

Tree = dict[str, Any]


def save(path: pathlib.Path, tree: Tree, dtype: Any = None) -> None:
    """Writes the leaves of nested dicts under their paths, `a/b/c`; None: in their own dtypes.

    They are brought into C's order, for safetensors writes memory as it lies, and kernels from
    other frameworks are transposed views.
    """
    flat = traverse_util.flatten_dict(tree, sep="/")
    arrays = {name: np.asarray(leaf, dtype, order="C") for name, leaf in flat.items()}
    safetensors.numpy.save_file(arrays, path)
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)  # safetensors lets only their owner read
