"""Shards written by TensorFlow, read by number; then cut, mutated and lied about."""

import concurrent.futures
import errno
import os
import struct

import google_crc32c
import pytest
import tensorflow as tf

from data_pipelines.errors import BadRecord
from data_pipelines.index import write_indexes
from data_pipelines.reading import record_bounds, record_index
from data_pipelines.reading.record_bounds import scan
from data_pipelines.reading.record_index import RecordIndex, ShardSlice

RECORDS = [b"first", b"", b"third" * 1000, b"fourth"]
STARTS = [0, 21, 37, 5053, 5075]  # 16 bytes around each


def write(path, records=RECORDS) -> str:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def index_of(path, take=4) -> RecordIndex:
    return RecordIndex([ShardSlice(str(path), 0, take)])


def outcomes(index) -> list:
    result = []
    for number in range(len(index)):
        try:
            result.append(index.read(number))
        except BadRecord as error:
            result.append(error.reason)
    return result


def test_reads_what_tensorflow_wrote(tmp_path):
    path = write(tmp_path / "shard")
    assert scan(path)[0].tolist() == STARTS
    index = index_of(path)
    assert outcomes(index) == RECORDS
    assert index.damage == []


def test_an_error_that_passes_is_waited_for(tmp_path, monkeypatch):
    index = index_of(write(tmp_path / "shard"))
    assert index.read(0) == RECORDS[0]
    monkeypatch.setattr(record_index, "_PAUSES_S", (0.0, 0.0))
    pread, left = os.pread, [2]

    def flaky(*args):
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "once in a while")
        return pread(*args)

    monkeypatch.setattr(os, "pread", flaky)
    assert index.read(2) == RECORDS[2]
    left[0] = 3
    with pytest.raises(OSError, match="once in a while"):
        index.read(3)


def test_slices_of_shards_are_numbered_through(tmp_path):
    a = write(tmp_path / "a", [b"a0", b"a1", b"a2"])
    b = write(tmp_path / "b", [b"b0", b"b1"])
    index = RecordIndex([ShardSlice(a, 1, 2), ShardSlice(b, 0, 0), ShardSlice(b, 0, 1)])
    assert outcomes(index) == [b"a1", b"a2", b"b0"]
    with pytest.raises(IndexError):
        index.read(3)


@pytest.mark.parametrize("cut", [0, 5, 20, 21, 30, 36, 37, 50, 5052, 5074])
def test_cut_shard_keeps_the_records_before_the_cut(tmp_path, cut):
    path = tmp_path / "shard"
    write(path)
    path.write_bytes(path.read_bytes()[:cut])
    whole = sum(end <= cut for end in STARTS[1:])
    index = index_of(path)
    assert outcomes(index) == RECORDS[:whole] + ["missing_in_shard"] * (4 - whole)
    assert len(index.damage) == 1
    assert f"{whole} whole records, 4 were expected" in index.damage[0]


def test_changed_byte_costs_one_record(tmp_path):
    path = tmp_path / "shard"
    write(path)
    data = bytearray(path.read_bytes())
    data[40 + 12] ^= 1
    path.write_bytes(data)
    assert outcomes(index_of(path)) == [RECORDS[0], RECORDS[1], "bad_crc", RECORDS[3]]


def test_lying_length_is_not_believed(tmp_path):
    path = tmp_path / "shard"
    write(path)
    data = bytearray(path.read_bytes())
    lie = struct.pack("<Q", 1 << 40)
    data[37:45] = lie
    path.write_bytes(data)
    index = index_of(path)
    assert outcomes(index) == [*RECORDS[:2], "missing_in_shard", "missing_in_shard"]
    assert "fails its checksum" in index.damage[0]
    crc = google_crc32c.value(lie)  # and with a checksum to match
    data[45:49] = struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
    path.write_bytes(data)
    index = index_of(path)
    assert outcomes(index) == [*RECORDS[:2], "missing_in_shard", "missing_in_shard"]
    assert "would end at" in index.damage[0]


def test_shard_with_fewer_records_than_the_statistics_say(tmp_path):
    index = index_of(write(tmp_path / "shard"), take=6)
    assert outcomes(index) == [*RECORDS, "missing_in_shard", "missing_in_shard"]


def test_missing_shard_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"1 of 1 shards are missing.*nowhere"):
        index_of(tmp_path / "nowhere")


def test_many_threads_read_the_same(tmp_path):
    records = [str(i).encode() * (i % 50) for i in range(400)]
    paths = [write(tmp_path / str(s), records[s::4]) for s in range(4)]
    index = RecordIndex([ShardSlice(path, 0, 100) for path in paths])
    wanted = [record for s in range(4) for record in records[s::4]]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(index.read, range(400))) == wanted


def test_a_written_index_takes_the_place_of_the_scan(tmp_path, monkeypatch):
    path = write(tmp_path / "x.tfrecord-00000-of-00001")
    write_indexes(tmp_path)
    monkeypatch.setattr(record_bounds, "scan", None)
    assert outcomes(index_of(path)) == RECORDS
    write_indexes(tmp_path)  # it is there: nothing is scanned


def test_no_shard_keeps_a_file_open(tmp_path):
    paths = [write(tmp_path / f"x.tfrecord-{i:05d}-of-00030") for i in range(30)]
    write_indexes(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    index = RecordIndex([ShardSlice(path, 0, 4) for path in paths])
    assert outcomes(index) == RECORDS * 30
    assert len(os.listdir("/proc/self/fd")) < before + 5


def test_an_index_that_does_not_fit_is_not_believed(tmp_path):
    path = write(tmp_path / "x.tfrecord-00000-of-00001")
    write_indexes(tmp_path)
    write(path, RECORDS[1:])
    assert outcomes(index_of(path, 3)) == RECORDS[1:]
    write_indexes(tmp_path)
    assert outcomes(index_of(path, 3)) == RECORDS[1:]
    (saved,) = (tmp_path / "record_index").iterdir()
    for damage in (b"", b"\x93NUMPY", b"nonsense", saved.read_bytes()[:-9]):
        saved.write_bytes(damage)
        assert outcomes(index_of(path, 3)) == RECORDS[1:]
