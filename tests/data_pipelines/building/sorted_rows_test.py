"""Rows of many files come back by ranges of their keys, each once, and are found by key."""

import numpy as np
import pytest

from data_pipelines.building.sorted_rows import (
    BUCKETS,
    find_rows,
    num_partitions,
    read_rows,
    write_rows,
)

ROW = np.dtype([("key", "<u8"), ("value", "<u4")])


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    every, paths = [], []
    for number, count in enumerate((1000, 0, 1, 5000)):
        rows = np.zeros(count, ROW)
        rows["key"] = rng.integers(0, 2**64, count, np.uint64)
        rows["value"] = number
        if count:
            rows["key"][0] = 2**64 - 1 if number else 0  # the ends
        paths.append(str(tmp_path / f"{number}.rows"))
        write_rows(paths[-1], rows)
        every.append(rows)
    return paths, np.concatenate(every)


@pytest.mark.parametrize("parts", [1, 2, 3, 7, BUCKETS])
def test_every_row_is_in_one_partition_and_they_are_in_order(files, parts):
    paths, every = files
    read = np.concatenate([read_rows(paths, part, parts, ROW) for part in range(parts)])
    np.testing.assert_array_equal(read, np.sort(every, order=["key", "value"], kind="stable"))


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 100])
def test_rows_are_found_by_key_in_merged_files(files, tmp_path, parts):
    paths, every = files
    merged = [str(tmp_path / f"merged{part}") for part in range(parts)]
    for part, path in enumerate(merged):
        write_rows(path, read_rows(paths, part, parts, ROW))
    for key in [*every["key"][::97], 0, 2**64 - 1]:
        found = find_rows(merged, int(key), ROW)
        assert sorted(found["value"]) == sorted(every["value"][every["key"] == key])
    assert len(find_rows(merged, 12345, ROW)) == 0


def test_partitions_are_as_many_as_needed_and_no_more_than_there_are_buckets():
    assert [num_partitions(n, 10) for n in (0, 10, 11, 10**9)] == [1, 1, 2, BUCKETS]
