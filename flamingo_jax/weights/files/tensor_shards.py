"""Tensors in safetensors files of bounded size with an index, as the hub's libraries share models.

`model.safetensors` where one file holds them all, else `model-00001-of-00007.safetensors` and so on
beside `model.safetensors.index.json`, which says of every tensor in which file it is.
"""

import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flamingo_jax.weights.files import tensor_file

MAX_BYTES = 4 << 30  # of a file, unless one tensor is larger
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class Group(NamedTuple):
    """Tensors to be written in one dtype; files hold those of one group."""

    tensors: Mapping[str, Any]  # arrays, or what has shape, dtype and indices as they have
    dtype: Any = None  # None: each in its own

    def num_bytes(self, name: str) -> int:
        """Of one tensor as it is written."""
        tensor = self.tensors[name]
        return math.prod(tensor.shape) * np.dtype(self.dtype or tensor.dtype).itemsize


def save(
    folder: pathlib.Path,
    groups: Sequence[Group],
    *,
    metadata: Mapping[str, str] | None = None,  # of every file
    tick: Callable[[int], object] = lambda num_bytes: None,
) -> int:
    """Writes all groups' tensors, in their order, into a folder; returns how many there were.

    A file is written a piece at a time. `tick` is called with the number of bytes that were written
    just now.
    """
    shards = [(group, names) for group in groups for names in _shards(group)]
    places: dict[str, str] = {}
    for i, (group, names) in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" if i or shards[1:] else SINGLE
        part = {name: group.tensors[name] for name in names}
        tensor_file.save(folder / file, part, group.dtype, tick, metadata=metadata)
        places |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": num_bytes(groups)}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return len(places)


def num_bytes(groups: Sequence[Group]) -> int:
    """Of all tensors as they are written."""
    return sum(group.num_bytes(name) for group in groups for name in group.tensors)


def are_in(folder: pathlib.Path) -> bool:
    """Whether a folder holds what `save` writes."""
    return any((folder / name).is_file() for name in (SINGLE, INDEX))


def _shards(group: Group) -> Iterator[list[str]]:
    """Names in order, as many together as fit into a file."""
    names: list[str] = []
    size = 0
    for name in group.tensors:
        more = group.num_bytes(name)
        if names and size + more > MAX_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += more
    if names:
        yield names
