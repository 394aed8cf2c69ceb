"""Random access to the records of TFRecord shards, by number, from any thread.

A TFRecord file is a chain of `u64 length, u32 crc(length), data, u32 crc(data)`, little-endian, the
crc a masked CRC-32C. Where each record begins is read from a file beside the shard, 8 bytes a
record, which `write_indexes` makes when a dataset is built; so opening takes the same time whatever
the size. Where there is none, or the shard has another length than it says, the headers are read,
once a shard and only when the shard is first asked for (about 2 us a record from the page cache).
These places are kept in memory, and nothing else is: no open files, no data.

How many records a shard has is taken from the dataset's own statistics, so that one damaged shard
does not move every other record of the dataset to another number. A record that a cut or lying
shard does not have is a BadRecord when it is asked for; those before the damage are read as usual.
"""

import array
import bisect
import dataclasses
import itertools
import os
import pathlib
import struct
import threading
import time
from collections.abc import Sequence

import google_crc32c
import numpy as np

from data_pipelines.errors import BadRecord

_INDEX_FOLDER = "record_index"
_HEADER_BYTES = 12
_FOOTER_BYTES = 4
_PAUSES_S = (0.1, 1.0, 10.0, 60.0)  # between tries to read


@dataclasses.dataclass(frozen=True)
class ShardSlice:
    """Records `skip` to `skip + take - 1` of one file."""

    path: str
    skip: int
    take: int


def write_indexes(data_dir: str | os.PathLike) -> None:
    """Makes the index files of all shards in a dataset's folder, those that it lacks."""
    folder = pathlib.Path(data_dir)
    for shard in sorted(folder.glob("*.tfrecord*")):
        path = _index_path(shard)
        if _saved_bounds(shard) is None:
            bounds, _ = scan(str(shard))
            path.parent.mkdir(exist_ok=True)
            partial = path.with_suffix(".partial")
            with open(partial, "wb") as file:
                np.save(file, bounds)
            os.replace(partial, path)


class RecordIndex:
    """The records of several shard slices, numbered through from 0."""

    def __init__(self, shards: Sequence[ShardSlice]):
        missing = [shard.path for shard in shards if not os.path.isfile(shard.path)]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(shards)} shards are missing, the first is {missing[0]}: "
                "copy them beside the others, or build the dataset again"
            )
        self._shards = tuple(shards)
        self._ends = list(itertools.accumulate(shard.take for shard in shards))
        self._bounds: list[np.ndarray | None] = [None] * len(shards)
        self._locks = [threading.Lock() for _ in shards]
        self._damage: dict[int, str] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def damage(self) -> list[str]:
        """One line for each damaged shard among those looked into so far."""
        return [self._damage[number] for number in sorted(self._damage)]

    def read(self, index: int) -> bytes:
        """The data of record `index`.

        Raises BadRecord with the reason `missing_in_shard` (it lies behind the place where a shard
        is cut or its chain of lengths breaks) or `bad_crc`, and IndexError outside 0 to len - 1.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, index)
        shard = self._shards[number]
        record = index - self._ends[number] + shard.take + shard.skip
        bounds = self._shard_bounds(number)
        if record >= len(bounds) - 1:
            raise BadRecord("missing_in_shard", f"record {record}: {self._damage[number]}")
        start, stop = int(bounds[record]) + _HEADER_BYTES, int(bounds[record + 1])
        data = _read_at(shard.path, start, stop - start)
        data, footer = data[:-_FOOTER_BYTES], data[-_FOOTER_BYTES:]
        if footer != _masked_crc(data):
            raise BadRecord("bad_crc", f"record {record} of {shard.path} fails its checksum")
        return data

    def _shard_bounds(self, number: int) -> np.ndarray:  # u64[n + 1], where each record begins
        with self._locks[number]:
            if self._bounds[number] is None:
                shard = self._shards[number]
                bounds, fault = _saved_bounds(shard.path), None
                if bounds is None:
                    bounds, fault = scan(shard.path)
                found, wanted = len(bounds) - 1, shard.skip + shard.take
                if found < wanted:
                    self._damage[number] = (
                        f"{shard.path} has {found} whole records, {wanted} were expected: "
                        f"{fault or 'the file simply ends'}"
                    )
                self._bounds[number] = bounds
            return self._bounds[number]


def _index_path(shard: str | os.PathLike) -> pathlib.Path:
    shard = pathlib.Path(shard)
    return shard.parent / _INDEX_FOLDER / f"{shard.name}.npy"


def _saved_bounds(shard: str | os.PathLike) -> np.ndarray | None:  # u64[n + 1]
    """What `scan` found when the index was written; None without one that fits the shard."""
    try:
        # Mapped, so that a lying header costs no memory; copied, for a mapping keeps a file open.
        bounds = np.array(np.load(_index_path(shard), mmap_mode="r"))
    except (OSError, ValueError, EOFError):  # there is none, or it is damaged
        return None
    fits = bounds.ndim == 1 and bounds.dtype == np.uint64 and len(bounds) > 0
    return bounds if fits and int(bounds[-1]) == os.path.getsize(shard) else None


def scan(path: str) -> tuple[np.ndarray, str | None]:
    """Where each whole record begins and the last one ends, and what is wrong behind it, if any.

    Lengths are believed only if their checksum holds and the record ends inside the file, so a
    lying header costs no memory.
    """
    bounds = array.array("Q", [0])
    file = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(file).st_size
        while bounds[-1] < size:
            header = os.pread(file, _HEADER_BYTES, bounds[-1])
            if len(header) < _HEADER_BYTES:
                return np.asarray(bounds), f"cut inside a header at byte {bounds[-1]}"
            if header[8:] != _masked_crc(header[:8]):
                return np.asarray(bounds), f"the length at byte {bounds[-1]} fails its checksum"
            (length,) = struct.unpack("<Q", header[:8])
            end = bounds[-1] + _HEADER_BYTES + length + _FOOTER_BYTES
            if end > size:
                return (
                    np.asarray(bounds),
                    f"the record at byte {bounds[-1]} would end at {end} of {size} bytes",
                )
            bounds.append(end)
    finally:
        os.close(file)
    return np.asarray(bounds), None


def framed(data: bytes) -> bytes:
    """One record as it stands in a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _read_at(path: str, start: int, length: int) -> bytes:
    """Bytes of a file; an error of the disk or the network is waited for, as most pass."""
    for pause_s in (*_PAUSES_S, None):
        try:
            file = os.open(path, os.O_RDONLY)
            try:
                return os.pread(file, length, start)
            finally:
                os.close(file)
        except OSError as error:
            if pause_s is None or isinstance(error, FileNotFoundError | PermissionError):
                raise
            time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def _masked_crc(data: bytes) -> bytes:
    """CRC-32C, rotated and offset as TFRecord does, as it stands in the file."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
