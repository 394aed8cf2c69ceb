"""Layers of a checkpoint as one stacked array that is read only where it is looked at.

A frozen language model of 70B is 140 GB in its files, more than a host's memory. Tensors of
safetensors files are views into the file (`checkpoint_files`); importers transpose and split them,
which reads nothing; a stack of them, which numpy would have to copy, is this. `hosts.place` asks it
for the parts that the host's devices hold, a parameter at a time.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


class LayerStack:
    """[*lead, ...] of layers [...], the first axes counting them; indexed as a numpy array is."""

    def __init__(self, layers: Sequence[np.ndarray], lead: tuple[int, ...]):
        if math.prod(lead) != len(layers):
            raise ValueError(f"{len(layers)} layers do not make {lead}")
        self._layers, self._lead = list(layers), lead
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

    def __getitem__(self, index: Any) -> np.ndarray:
        index = index if isinstance(index, tuple) else (index,)
        if Ellipsis in index:
            at = index.index(Ellipsis)
            missing = self.ndim - len(index) + 1
            index = (*index[:at], *[slice(None)] * missing, *index[at + 1 :])
        counted = len(self._lead)
        numbers = np.arange(len(self._layers)).reshape(self._lead)[index[:counted]]
        rest = index[counted:]
        parts = np.stack([self._layers[i][rest] for i in np.ravel(numbers)])
        return parts.reshape(*np.shape(numbers), *parts.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a stack of layers is no array before it is copied")
        return np.asarray(self[...], dtype)
