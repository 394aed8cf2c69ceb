"""The GGUF container: metadata and (quantised) tensors of one file. Not part of the paper.

The header is walked here, with every length held against the file's size before it is used: the
`gguf` package's own reader takes lengths on trust, so that a damaged file ends in an IndexError or
fills the memory, and it needs 3 s for a 49,152-piece vocabulary where this needs 0.2 s. Its
block formats and `dequantize` are used as they are.

Layout, little-endian: "GGUF", u32 version, u64 number of tensors, u64 number of metadata entries,
the entries (name, type, value), the tensor table (name, dims, type, offset), padding, the data.
"""

import dataclasses
import functools
import math
import pathlib
import struct
from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np

from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files.unread import Unread

_SCALARS = {  # GGUF value type -> numpy
    **{0: np.dtype("u1"), 1: np.dtype("i1"), 2: np.dtype("<u2"), 3: np.dtype("<i2")},
    **{4: np.dtype("<u4"), 5: np.dtype("<i4"), 6: np.dtype("<f4"), 7: np.dtype("?")},
    **{10: np.dtype("<u8"), 11: np.dtype("<i8"), 12: np.dtype("<f8")},
}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_MAX_RANK = 4  # as in GGML itself
_CHUNK = 1 << 20  # bytes that are compared at once


@dataclasses.dataclass(frozen=True)
class _Entry:
    shape: tuple[int, ...]  # outermost dim first, as numpy has it
    kind: gguf.GGMLQuantizationType
    start: int  # bytes from the file's beginning
    stop: int


@dataclasses.dataclass(frozen=True)
class GGUFFile:
    """Metadata as plain Python values (arrays of numbers are lists), and tensors on demand."""

    path: pathlib.Path
    metadata: Mapping[str, Any]
    _data: np.ndarray
    _entries: Mapping[str, _Entry]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """Of all tensors, in the file's order."""
        return list(self._entries)

    def unread(self, name: str) -> Unread:
        """A tensor as float32, dequantised when it is looked at.

        BadWeightsFile where it is absent, or in a format that cannot be read.
        """
        if name not in self._entries:
            raise BadWeightsFile(f"{self.path}: tensor {name!r} is missing")
        entry = self._entries[name]
        if not _can_be_read(entry.kind):
            raise BadWeightsFile(
                f"{self.path}: tensor {name!r} is in format {entry.kind.name}, which cannot be "
                f"dequantised here: use a file in F32, F16, BF16, Q8_0, Q6_K or Q4_K"
            )
        return Unread(entry.shape, lambda: self._read(entry))

    def repeats(self, name: str, other: str) -> bool:
        """Whether the two tensors are there and the same, byte by byte."""
        if not {name, other} <= self._entries.keys():
            return False
        one, two = self._entries[name], self._entries[other]
        if (one.shape, one.kind) != (two.shape, two.kind):
            return False
        a, b = (self._data[entry.start : entry.stop] for entry in (one, two))
        chunks = (slice(i, i + _CHUNK) for i in range(0, len(a), _CHUNK))
        return all(np.array_equal(a[chunk], b[chunk]) for chunk in chunks)

    def _read(self, entry: _Entry) -> np.ndarray:
        data = np.asarray(self._data[entry.start : entry.stop])
        values = gguf.dequantize(_blocks(data, entry), entry.kind)
        return values.reshape(entry.shape).astype(np.float32, copy=False)


@functools.cache
def _can_be_read(kind: gguf.GGMLQuantizationType) -> bool:
    """Whether the package dequantises the format, tried on one block of zeros."""
    try:
        gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def read(path: str | pathlib.Path) -> GGUFFile:
    """Reads the header and maps the data. BadWeightsFile: not a GGUF file, damaged or cut short."""
    path = pathlib.Path(path)
    try:
        size = path.stat().st_size
        if size < 24:
            raise BadWeightsFile(f"{path}: not a GGUF file ({size} bytes)")
        data = np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise BadWeightsFile(
            f"{path}: cannot be read ({error.strerror or error}): give the GGUF file itself"
        ) from error
    cursor = _Cursor(path, data)
    if cursor.take(4).tobytes() != b"GGUF":
        raise BadWeightsFile(f"{path}: not a GGUF file (it does not begin with 'GGUF')")
    version = cursor.number("<I")
    if version not in _VERSIONS:
        raise BadWeightsFile(f"{path}: GGUF version {version}; {_VERSIONS} can be read")
    num_tensors, num_metadata = cursor.number("<Q"), cursor.number("<Q")
    metadata: dict[str, Any] = {}
    for _ in range(
        num_metadata
    ):  # every round reads bytes, so a lying count ends at the file's end
        name = cursor.string()
        metadata[name] = cursor.value(cursor.number("<I"))
    table = [cursor.tensor_row() for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise BadWeightsFile(f"{path}: general.alignment is {alignment!r:.40}, want a number")
    start = math.ceil(cursor.position / alignment) * alignment
    entries = {name: _entry(path, size, start, *row) for name, *row in table}
    if len(entries) != num_tensors:
        raise BadWeightsFile(f"{path}: names a tensor twice")
    return GGUFFile(path, metadata, data, entries)


class _Cursor:
    """Reads forward through the header."""

    def __init__(self, path: pathlib.Path, data: np.ndarray):
        self._path, self._data = path, data
        self.position = 0

    def take(self, count: int) -> np.ndarray:
        stop = self.position + count
        if stop > len(self._data):
            raise BadWeightsFile(
                f"{self._path}: cut short or damaged inside its header, at byte {self.position} of "
                f"{len(self._data)}: fetch it again"
            )
        self.position, start = stop, self.position
        return self._data[start:stop]

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)).tobytes())[0]

    def string(self) -> str:
        return self.take(self.number("<Q")).tobytes().decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind in _SCALARS:
            return self.take(_SCALARS[kind].itemsize).view(_SCALARS[kind])[0].item()
        if kind == _ARRAY:
            item, count = self.number("<I"), self.number("<Q")
            if item in _SCALARS:
                return self.take(count * _SCALARS[item].itemsize).view(_SCALARS[item]).tolist()
            if item == _STRING:
                return [self.string() for _ in range(count)]
            kind = item  # arrays of arrays are in no file we know
        raise BadWeightsFile(f"{self._path}: unknown metadata type {kind}: damaged, fetch it again")

    def tensor_row(self) -> tuple[str, tuple[int, ...], int, int]:
        name, rank = self.string(), self.number("<I")
        if rank > _MAX_RANK:
            raise BadWeightsFile(f"{self._path}: tensor {name!r:.80} has {rank} dims: damaged")
        shape = tuple(self.number("<Q") for _ in range(rank))[::-1]
        return name, shape, self.number("<I"), self.number("<Q")


def _entry(
    path: pathlib.Path, size: int, start: int, shape: tuple[int, ...], kind: int, offset: int
) -> _Entry:
    try:
        kind = gguf.GGMLQuantizationType(kind)
    except ValueError as error:
        raise BadWeightsFile(
            f"{path}: unknown tensor format {kind}: newer than this `gguf` package, or damaged"
        ) from error
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    if not shape or shape[-1] % block:
        raise BadWeightsFile(f"{path}: a tensor of {list(shape)} cannot be in {kind.name}: damaged")
    stop = start + offset + math.prod(shape) // block * block_bytes
    if stop > size:
        raise BadWeightsFile(
            f"{path}: cut short: it needs {stop} bytes, has {size}; fetch it again"
        )
    return _Entry(shape, kind, start + offset, stop)


def _blocks(data: np.ndarray, entry: _Entry) -> np.ndarray:
    """Bytes as `gguf.dequantize` takes them: plain floats typed, rows of blocks otherwise."""
    plain = {
        gguf.GGMLQuantizationType.F32: np.dtype("<f4"),
        gguf.GGMLQuantizationType.F16: np.dtype("<f2"),
    }
    if entry.kind in plain:
        return data.view(plain[entry.kind])
    block, block_bytes = gguf.GGML_QUANT_SIZES[entry.kind]
    return data.reshape(*entry.shape[:-1], entry.shape[-1] // block * block_bytes)
