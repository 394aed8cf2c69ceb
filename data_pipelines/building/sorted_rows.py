"""Small rows in files sorted by a hash, so that all rows of a range of hashes are read at once.

This is the shuffle of `data_pipelines.build`. Beam's own keeps every row in memory on its
DirectRunner; here each task sorts what it has into a file, and a later task reads its range out of
all files: memory is bounded by the range, on every runner. A file is the byte offsets of its
buckets (by the upper bits of the hash), then the rows.
"""

import bisect
from collections.abc import Sequence

import numpy as np
from etils import epath

from data_pipelines.whole_files import write_whole

BUCKETS = 1024  # no more partitions than this
_SHIFT = np.uint64(64 - 10)
_BOUND = np.dtype("<u8")


def write_rows(path: str, rows: np.ndarray) -> None:
    """Writes a structured array with a field `key` u64, of evenly spread hashes."""
    rows = rows[np.argsort(rows["key"], kind="stable")]
    starts = np.searchsorted(rows["key"] >> _SHIFT, np.arange(BUCKETS + 1, dtype=np.uint64))
    offsets = (BUCKETS + 1) * _BOUND.itemsize + starts * rows.dtype.itemsize
    write_whole(path, offsets.astype(_BOUND).tobytes() + rows.tobytes())


def read_rows(
    paths: Sequence[str], partition: int, num_partitions: int, dtype: np.dtype
) -> np.ndarray:  # dtype[n], sorted by key; equal keys in the order of `paths`
    """The rows of all files whose keys lie in one of `num_partitions` even ranges."""
    first = partition * BUCKETS // num_partitions
    last = (partition + 1) * BUCKETS // num_partitions
    parts = [_read_buckets(path, first, last, dtype) for path in paths]
    rows = np.concatenate(parts) if parts else np.zeros(0, dtype)
    return rows[np.argsort(rows["key"], kind="stable")]


def find_rows(paths: Sequence[str], key: int, dtype: np.dtype) -> np.ndarray:  # dtype[n]
    """All rows of a key; file i of `paths` holds what `read_rows` gave for partition i of all."""
    bucket = key >> int(_SHIFT)
    firsts = range(len(paths))
    part = bisect.bisect_right(firsts, bucket, key=lambda i: i * BUCKETS // len(paths)) - 1
    rows = _read_buckets(paths[part], bucket, bucket + 1, dtype)
    return rows[rows["key"] == np.uint64(key)]


def num_partitions(num_rows: int, rows_per_partition: int) -> int:
    """How many ranges keep each below about `rows_per_partition` rows."""
    return max(1, min(BUCKETS, -(-num_rows // rows_per_partition)))


def _read_buckets(path: str, first: int, last: int, dtype: np.dtype) -> np.ndarray:
    with epath.Path(path).open("rb") as file:
        file.seek(first * _BOUND.itemsize)
        bounds = np.frombuffer(file.read((last - first + 1) * _BOUND.itemsize), _BOUND)
        start, stop = int(bounds[0]), int(bounds[-1])
        file.seek(start)
        return np.frombuffer(file.read(stop - start), dtype)
