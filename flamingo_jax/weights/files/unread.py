"""A tensor that is made when it is looked at, each time: one that lies quantised in a file."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


class Unread:
    """float32 of `shape`; indexed, and made an array of, as a numpy array is."""

    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, ...], read: Callable[[], np.ndarray]):
        self.shape, self._read = shape, read

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._read()[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a tensor is no array before it is read")
        return np.asarray(self._read(), dtype)

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> "Unread":
        """What `change`, which keeps the shape, will make of it."""
        return Unread(self.shape, lambda: change(self._read()))

    def split(self, cut: Callable[[np.ndarray], Mapping[str, np.ndarray]]) -> dict[str, "Unread"]:
        """What `cut` will make of it, by name; each part reads the whole."""
        parts = cut(np.broadcast_to(self.dtype.type(0), self.shape))  # for their shapes
        return {
            name: Unread(part.shape, lambda name=name: cut(self._read())[name])
            for name, part in parts.items()
        }
