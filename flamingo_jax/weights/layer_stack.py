"""Layers of a checkpoint as one stacked array that is read only where it is looked at.

A frozen language model of 70B is 140 GB in its files, more than a host's memory. Tensors of
safetensors files are views into the file (`checkpoint_files`); importers transpose and split them,
which reads nothing; a stack of them, which numpy would have to copy, is this. `hosts.place` asks it
for the parts that the host's devices hold, a parameter at a time, and NaN is found in them then.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from flamingo_jax.weights import finite


class LayerStack:
    """[*lead, ...] of layers [...], the first axes counting them; indexed as a numpy array is.

    Numbers in the place of the first axes give a smaller stack, down to one layer, and read
    nothing; BadWeightsFile from any reading of a layer that is not finite, by its name.
    """

    def __init__(self, layers: Sequence[np.ndarray], lead: tuple[int, ...], names: Sequence[str]):
        if math.prod(lead) != len(layers):
            raise ValueError(f"{len(layers)} layers do not make {lead}")
        self._layers, self._lead, self._names = list(layers), lead, list(names)
        self.shape = (*lead, *layers[0].shape)
        self.dtype = layers[0].dtype

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
        return parts.reshape(*np.shape(numbers), *parts.shape[1:])

    def _part(self, i: int, rest: tuple[Any, ...]) -> np.ndarray:
        part = np.asarray(self._layers[i][rest])
        finite.check(self._names[i], part)
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a stack of layers is no array before it is copied")
        return np.asarray(self[...], dtype)
