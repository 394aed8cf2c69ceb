"""Datasets in a bucket: the same batches as from a disk, damage counted, what lacks is named."""

import json
import pathlib

import jax
import numpy as np
import pytest

from data_pipelines import index
from data_pipelines.commands import dataset_folder
from data_pipelines.errors import TooManyBadRecords
from data_pipelines.reading import bucket_files, record_bounds
from data_pipelines.reading.record_index import RecordIndex, ShardSlice
from data_pipelines.reading.splits import shard_slices
from data_pipelines.reading.tfrecord import framed
from data_pipelines.reading.versions import newest_versions
from data_pipelines.streams.stream import Stream
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.tokenizer import Tokenizer
from tests import buckets
from tests.data_pipelines.batches import assert_same, take
from tests.data_pipelines.tiny_records import pairs, record

PP = ImagePreprocessing(size_px=8)


@pytest.fixture(scope="module")
def bucket():
    with buckets.serve("bucket") as address:
        yield address


@pytest.fixture
def upload(bucket, request):
    """`upload(folder, indexed=True)`: the address of a copy of a dataset's folder."""

    def copy(folder: str, indexed: bool = True) -> str:
        if indexed:
            index.write_indexes(folder)
        address = f"{bucket}/{request.node.name}/1.0.0"
        for file in filter(pathlib.Path.is_file, pathlib.Path(folder).rglob("*")):
            bucket_files.write(f"{address}/{file.relative_to(folder)}", file.read_bytes())
        return address

    return copy


def stream(data_dir: str, *, state=None, process=(0, 1), **changes) -> Stream:
    fields = {"kind": "pair", "batch_size": 6, "num_tokens": 12, "seed": 7, **changes}
    return Stream(
        StreamConfig("tiny", data_dir, **fields),
        Tokenizer.byte_level(),
        preprocessing=PP,
        process_index=process[0],
        process_count=process[1],
        state=state,
    )


@pytest.mark.parametrize("pairs_per_row", [1, 2])
def test_the_same_batches_as_from_a_disk_resumed_and_shared_out(
    build_dataset, upload, pairs_per_row
):
    folder = build_dataset([*pairs(30), record("x", "30", media=[b"no picture"])], num_shards=3)
    address = upload(folder)
    fields = {"split": "train[10%:]", "pairs_per_row": pairs_per_row, "num_tokens": 20}
    wanted = stream(folder, **fields)
    batches = take(wanted, 8)
    found = stream(address, **fields)
    assert_same(take(found, 3), batches[:3])
    state = json.loads(json.dumps(found.state()))
    halves = [take(stream(address, state=state, process=(p, 2), **fields), 5) for p in range(2)]
    both = [
        jax.tree.map(lambda *rows: np.concatenate(rows), *step)
        for step in zip(*halves, strict=True)
    ]
    assert_same(both, batches[3:])
    assert take(found, 5)
    assert found.state() == wanted.state()
    assert found.skipped == {"not_an_image": found.skipped["not_an_image"]}
    once = {"shuffle": False, "repeat": False, "split": "train"}
    assert_same(stream(address, **once), stream(folder, **once))


def test_short_shards_and_damaged_index_files_are_counted(build_dataset, upload):
    address = upload(build_dataset(pairs(30), num_shards=3))
    shards = [shard.path for shard in shard_slices(address, "train", "x")]
    data = bucket_files.read(shards[0])
    bounds = record_bounds.load(shards[0])
    cut = int(bounds[7]) + 3
    bucket_files.write(shards[0], data[:cut])
    changed = bytearray(bucket_files.read(shards[1]))
    changed[40] ^= 1
    bucket_files.write(shards[1], bytes(changed))
    read = stream(address, max_skipped_share=1.0, repeat=False)
    assert sum(int(batch.token_mask.any(1).sum()) for batch in read) == read.examples == 26
    assert read.skipped == {"bad_crc": 1, "missing_in_shard": 3}
    assert read.rows.records.damage[0].startswith(f"{shards[0]} ends before byte ")
    bucket_files.write(record_bounds.index_file(shards[2]), b"\x93NUMPY")
    read = stream(address, max_skipped_share=1.0, repeat=False)
    assert len(list(read)) == 5
    assert read.examples == 16
    assert f"python -m data_pipelines.index --data={address}" in read.rows.records.damage[1]
    assert list(index.write_indexes(address)) == [shards[2]]
    with pytest.raises(TooManyBadRecords, match="ends before byte"):
        take(stream(address, batch_size=30, max_skipped_share=0.01), 4)
    np.testing.assert_array_equal(record_bounds.scan(shards[0])[0], bounds[:8])


def test_what_is_missing_is_named_before_anything_is_read(build_dataset, upload, monkeypatch):
    folder = build_dataset(pairs(30), num_shards=3)
    address = upload(folder, indexed=False)
    with pytest.raises(FileNotFoundError, match=r"3 of 3 .*data_pipelines.index --data=gs://"):
        stream(address)
    assert len(index.write_indexes(address)) == 3
    index.write_indexes(folder)
    for shard in shard_slices(folder, "train", "x"):
        copy = shard.path.replace(folder, address)
        np.testing.assert_array_equal(record_bounds.load(copy), record_bounds.load(shard.path))
    assert len(stream(address).rows.records) == 30
    assert newest_versions(address) == [dataset_folder(address.rpartition("/")[0])]
    with pytest.raises(FileNotFoundError, match=r"1 of 1 shards are missing, .* gs://"):
        RecordIndex([ShardSlice(f"{address}/other.tfrecord", 0, 1)])
    with monkeypatch.context() as patch:
        patch.setattr(bucket_files, "names", lambda folder: [])  # as where that is refused
        with pytest.raises(PermissionError, match="not listed"):
            stream(address)
    with pytest.raises(ValueError, match=r"no split 'test' in gs://"):
        stream(address, split="test")
    with pytest.raises(ValueError, match=r"nowhere has no dataset_info.json"):
        stream(f"{address}/nowhere")
    with pytest.raises(OSError, match="begin with gs://"):
        stream(address.replace("gs:", "hdfs:"))


def test_large_blocks_find_what_single_headers_do(bucket, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    data = b"".join(framed(rng.bytes(int(n))) for n in rng.integers(0, 400, 40))
    for cut in (len(data), len(data) - 1, len(data) - 300, 5):
        (tmp_path / "shard").write_bytes(data[:cut])
        bucket_files.write(f"{bucket}/shard", data[:cut])
        for block in (13, 256, 1 << 20):
            monkeypatch.setattr(record_bounds, "_BLOCK_BYTES", block)
            here, there = (
                record_bounds.scan(str(tmp_path / "shard")),
                record_bounds.scan(f"{bucket}/shard"),
            )
            np.testing.assert_array_equal(here[0], there[0])
            assert here[1] == there[1]
