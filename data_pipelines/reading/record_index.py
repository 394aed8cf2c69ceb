"""Random access to the records of TFRecord shards, by number, from any thread.

Where each record begins is read from a file beside the shard (`record_bounds`), so opening takes
the same time whatever the size. Where there is none, or the shard has another length than it says,
the headers are read, once a shard and only when the shard is first asked for (about 2 us a record
from the page cache); in a bucket, where each would be a request, it has to be there. These places
are kept in memory, and nothing else is: no open files, no data.

How many records a shard has is taken from the dataset's own statistics, so that one damaged shard
does not move every other record of the dataset to another number. A record that a cut or lying
shard does not have is a BadRecord when it is asked for; those before the damage are read as usual.
"""

import bisect
import dataclasses
import itertools
import os
import threading
import time
from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import BadRecord
from data_pipelines.reading import bucket_files, record_bounds
from data_pipelines.reading.tfrecord import FOOTER_BYTES, HEADER_BYTES, masked_crc

_PAUSES_S = (0.1, 1.0, 10.0, 60.0)  # between tries to read


@dataclasses.dataclass(frozen=True)
class ShardSlice:
    """Records `skip` to `skip + take - 1` of one file."""

    path: str  # of this machine, or gs://...
    skip: int
    take: int


class RecordIndex:
    """The records of several shard slices, numbered through from 0."""

    def __init__(self, shards: Sequence[ShardSlice]):
        _check_all_there([shard.path for shard in shards])
        self._shards = tuple(shards)
        self._ends = list(itertools.accumulate(shard.take for shard in shards))
        self._bounds: list[np.ndarray | None] = [None] * len(shards)
        self._locks = [threading.Lock() for _ in shards]
        self._damage: dict[int, str] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def in_bucket(self) -> bool:
        """Whether a record takes a while to come, and many are best asked for at once."""
        return any(bucket_files.is_address(shard.path) for shard in self._shards)

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
        start, stop = int(bounds[record]) + HEADER_BYTES, int(bounds[record + 1])
        try:
            data = _read_at(shard.path, start, stop - start)
        except EOFError:
            self._damage[number] = f"{shard.path} ends before byte {stop}: copy it again"
            raise BadRecord(
                "missing_in_shard", f"record {record}: {self._damage[number]}"
            ) from None
        data, footer = data[:-FOOTER_BYTES], data[-FOOTER_BYTES:]
        if footer != masked_crc(data):
            raise BadRecord("bad_crc", f"record {record} of {shard.path} fails its checksum")
        return data

    def _shard_bounds(self, number: int) -> np.ndarray:  # u64[n + 1], where each record begins
        with self._locks[number]:
            if self._bounds[number] is None:
                shard = self._shards[number]
                bounds, fault = record_bounds.load(shard.path), None
                if bounds is None and bucket_files.is_address(shard.path):
                    bounds = np.zeros(1, np.uint64)
                    fault = f"its index file is damaged, {_index_command(shard.path)} mends it"
                elif bounds is None:
                    bounds, fault = record_bounds.scan(shard.path)
                found, wanted = len(bounds) - 1, shard.skip + shard.take
                if found < wanted:
                    self._damage[number] = (
                        f"{shard.path} has {found} whole records, {wanted} were expected: "
                        f"{fault or 'the file simply ends'}"
                    )
                self._bounds[number] = bounds
            return self._bounds[number]


def _check_all_there(paths: Sequence[str]) -> None:
    """FileNotFoundError where shards are missing, or in a bucket their index files."""
    in_bucket = [path for path in paths if bucket_files.is_address(path)]
    there = {
        f"{folder}/{name}"
        for folder in {os.path.dirname(path) for path in in_bucket}
        for name in bucket_files.names(folder)
    }
    missing = [path for path in paths if path not in there and not os.path.isfile(path)]
    if missing and missing[0] in in_bucket and bucket_files.exists(missing[0]):
        raise PermissionError(
            f"{os.path.dirname(missing[0])} can be read but not listed: ask for the right to list "
            "objects, as Storage Object Viewer has it"
        )
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} shards are missing, the first is {missing[0]}: "
            "copy them beside the others, or build the dataset again"
        )
    lacking = [path for path in in_bucket if record_bounds.index_file(path) not in there]
    if lacking:
        raise FileNotFoundError(
            f"{len(lacking)} of {len(paths)} shards have no index file, the first is {lacking[0]}, "
            "and a bucket takes long to be searched for records: make them once with "
            + _index_command(lacking[0])
        )


def _index_command(shard: str) -> str:
    return f"python -m data_pipelines.index --data={os.path.dirname(shard)}"


def _read_at(path: str, start: int, length: int) -> bytes:
    """Bytes of a file; an error of the disk or the network is waited for, as most pass."""
    if bucket_files.is_address(path):
        return bucket_files.read(path, start, start + length)
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
