"""Where the records of a TFRecord file begin: found by their headers, and kept in a file beside it.

That index file, `record_index/SHARD.npy`, holds 8 bytes a record. `data_pipelines.build` writes it
with the shard, and `data_pipelines.index` for datasets that others have written.
"""

import array
import contextlib
import io
import os
import pathlib
import struct
from collections.abc import Iterable

import numpy as np

from data_pipelines.reading import bucket_files
from data_pipelines.reading.tfrecord import FOOTER_BYTES, HEADER_BYTES, masked_crc
from data_pipelines.whole_files import write_whole

FOLDER = "record_index"
_BLOCK_BYTES = 16 << 20  # of a bucket's file, read at a time


def index_file(shard: str) -> str:
    """The path of a shard's index file."""
    folder, name = os.path.split(shard)
    return os.path.join(folder, FOLDER, f"{name}.npy")


def save(shard: str, bounds: Iterable[int]) -> None:
    """Writes where each record begins and the last one ends."""
    file = io.BytesIO()
    np.save(file, np.asarray(bounds, np.uint64))
    path = index_file(shard)
    if bucket_files.is_address(path):
        bucket_files.write(path, file.getvalue())
    else:
        pathlib.Path(path).parent.mkdir(exist_ok=True)
        write_whole(path, file.getvalue())


def load(shard: str) -> np.ndarray | None:  # u64[n + 1]
    """What `save` wrote; None where there is none, or a damaged one.

    Also where the shard has another length than it says; not in a bucket, where that comes out when
    its records are read.
    """
    if bucket_files.is_address(shard):
        with contextlib.suppress(FileNotFoundError):
            return _parse(bucket_files.read(index_file(shard)))
        return None
    try:
        bounds = _parse(pathlib.Path(index_file(shard)).read_bytes())
    except OSError:
        return None
    return bounds if bounds is not None and int(bounds[-1]) == os.path.getsize(shard) else None


def scan(path: str) -> tuple[np.ndarray, str | None]:
    """Where each whole record begins and the last one ends, and what is wrong behind it, if any.

    Lengths are believed only if their checksum holds and the record ends inside the file, so a
    lying header costs no memory.
    """
    open_file = _BucketFile if bucket_files.is_address(path) else _LocalFile
    bounds = array.array("Q", [0])
    with contextlib.closing(open_file(path)) as file:
        while header := file.read(bounds[-1], HEADER_BYTES):
            if len(header) < HEADER_BYTES:
                return np.asarray(bounds), f"cut inside a header at byte {bounds[-1]}"
            if header[8:] != masked_crc(header[:8]):
                return np.asarray(bounds), f"the length at byte {bounds[-1]} fails its checksum"
            (length,) = struct.unpack("<Q", header[:8])
            end = bounds[-1] + HEADER_BYTES + length + FOOTER_BYTES
            if not file.reaches(end):
                return (
                    np.asarray(bounds),
                    f"the record at byte {bounds[-1]} would end at {end}, behind the file's end",
                )
            bounds.append(end)
    return np.asarray(bounds), None


def _parse(data: bytes) -> np.ndarray | None:  # u64[n + 1]
    """The array in a .npy file; what a damaged one says of itself is not believed."""
    file = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            return None
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        bounds = np.frombuffer(data, np.uint64, offset=file.tell())
    except ValueError:
        return None
    if dtype != np.uint64 or shape != bounds.shape or not len(bounds) or bounds[0]:
        return None
    return bounds if (np.diff(bounds.view(np.int64)) > 0).all() else None


class _LocalFile:
    """Pieces of a file, shorter at its end."""

    def __init__(self, path: str):
        self._file = os.open(path, os.O_RDONLY)
        self._size = os.fstat(self._file).st_size

    def close(self) -> None:
        os.close(self._file)

    def read(self, start: int, length: int) -> bytes:
        return os.pread(self._file, length, start)

    def reaches(self, end: int) -> bool:
        return end <= self._size


class _BucketFile:
    """The same of a file in a bucket, forwards, a large block a request."""

    def __init__(self, path: str):
        self._path = path
        self._start, self._block = 0, b""
        self._length = _BLOCK_BYTES  # of the next block; halved where it would pass the end

    def close(self) -> None:
        self._block = b""

    def read(self, start: int, length: int) -> bytes:
        if start + length > self._start + len(self._block):
            self._start, self._block = start, self._block[start - self._start :]
            while self._length and len(self._block) < length:
                at = self._start + len(self._block)
                try:
                    self._block += bucket_files.read(self._path, at, at + self._length)
                except EOFError:
                    self._length //= 2
        return self._block[start - self._start :][:length]

    def reaches(self, end: int) -> bool:
        return bool(self.read(end - 1, 1))
