"""Layers of a checkpoint as one stacked array that is read only where it is looked at.

A frozen language model of 70B is 140 GB in its files, more than a host's memory. Tensors of
safetensors files are views into the file (`checkpoint_files`); importers transpose and split them,
which reads nothing; a stack of them, which numpy would have to copy, is this. `hosts.place` asks it
for the parts that the host's devices hold, a parameter at a time, and NaN is found in them then.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flamingo_jax.weights import finite
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files.unread import Unread

_LAYER = re.compile(r"(?<![^/])layer_(\d+)(?=/)")  # in a name, as `core.stack.unroll` makes them


class LayerStack:
    """[*lead, ...] of layers [...], the first axes counting them; indexed as a numpy array is.

    Numbers in the place of the first axes give a smaller stack, down to one layer, and read
    nothing; BadWeightsFile for a layer of another shape than the first, and from any reading of one
    that is not finite, by its name.
    """

    def __init__(self, layers: Sequence[np.ndarray], lead: tuple[int, ...], names: Sequence[str]):
        if math.prod(lead) != len(layers):
            raise ValueError(f"{len(layers)} layers do not make {lead}")
        for layer, name in zip(layers, names, strict=True):
            if layer.shape != layers[0].shape:
                raise BadWeightsFile(
                    f"{name} is {list(layer.shape)}, the first layer's {list(layers[0].shape)}: "
                    "fetch the file again"
                )
        self._layers, self._lead, self._names = list(layers), lead, list(names)
        self.shape = (*lead, *layers[0].shape)
        self.dtype = layers[0].dtype
        # Of one that is made from its file a part takes as long as all of it.
        self.reads_whole = any(isinstance(layer, Unread) for layer in layers)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> "np.ndarray | LayerStack":
        index = index if isinstance(index, tuple) else (index,)
        if Ellipsis in index:
            at = index.index(Ellipsis)
            missing = self.ndim - len(index) + 1
            index = (*index[:at], *[slice(None)] * missing, *index[at + 1 :])
        counted = len(self._lead)
        numbers = np.arange(len(self._layers)).reshape(self._lead)[index[:counted]]
        if 0 < len(index) <= counted and all(isinstance(i, int | np.integer) for i in index):
            chosen = np.ravel(numbers)
            layers, names = ([these[i] for i in chosen] for these in (self._layers, self._names))
            return LayerStack(layers, np.shape(numbers), names)
        rest = index[counted:]
        parts = np.stack([self._part(i, rest) for i in np.ravel(numbers)])
        return parts.reshape((*np.shape(numbers), *parts.shape[1:]))

    def _part(self, i: int, rest: tuple[Any, ...]) -> np.ndarray:
        part = np.asarray(self._layers[i][rest])
        finite.check(self._names[i], part)
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a stack of layers is no array before it is copied")
        return np.asarray(self[...], dtype)


def restack(
    tensors: Mapping[str, np.ndarray],
    what: str,  # the file or folder, for messages
) -> dict[str, np.ndarray | LayerStack]:
    """Layers that lie apart, `a/layer_000/b` and so on, as stacks `a/layers/b`; reads nothing.

    The inverse of `core.stack.unroll`. BadWeightsFile where some of a stack's layers are missing.
    """
    apart: dict[str, dict[tuple[int, ...], str]] = {}
    for name in tensors:
        numbers = tuple(map(int, _LAYER.findall(name)))
        apart.setdefault(_LAYER.sub("layers", name), {})[numbers] = name
    found: dict[str, np.ndarray | LayerStack] = {}
    for path, names in apart.items():
        lead = tuple(max(axis) + 1 for axis in zip(*names, strict=True))
        if len(names) != math.prod(lead):
            raise BadWeightsFile(
                f"{what}: of {path} there are {len(names)} layers, numbered as if there were "
                f"{math.prod(lead)}: copy the folder anew"
            )
        if not lead:
            found[path] = tensors[path]
            continue
        order = [names[numbers] for numbers in np.ndindex(lead)]
        layers = [tensors[name] for name in order]
        found[path] = LayerStack(layers, lead, [f"{what}: {name}" for name in order])
    return found
