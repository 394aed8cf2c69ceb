"""Which records of which files a split of a TFDS dataset names."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

import tensorflow_datasets as tfds

from data_pipelines.reading import bucket_files
from data_pipelines.reading.record_index import ShardSlice

_METADATA = ("dataset_info.json", "features.json")


def shard_slices(data_dir: str | os.PathLike, split: str, field: str) -> list[ShardSlice]:
    """The slices of a split in TFDS notation, in order; `field` begins the message of an error.

    Raises:
      ValueError: no dataset there, a damaged one, or none of TFRecords; no such split, or an empty
        one.
    """
    with _metadata(data_dir) as folder:
        if not os.path.isfile(os.path.join(folder, "dataset_info.json")):
            raise ValueError(
                f"{field}: {data_dir} has no dataset_info.json: data_dir must be the "
                "folder of one version of a TFDS dataset, such as DIR/emoji/1.0.0"
            )
        try:
            info = tfds.builder_from_directory(folder).info
        except Exception as error:  # TFDS's own, JSON's, protobuf's
            raise ValueError(
                f"{field}: {data_dir} is damaged, for TFDS cannot read its metadata ({error}): "
                "copy or build it anew"
            ) from error
    if info.file_format is not tfds.core.FileFormat.TFRECORD:
        raise ValueError(f"{field}: {data_dir} is {info.file_format}, not tfrecord")
    try:
        instructions = info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{field}: no split {split!r} in {data_dir}: it has {sorted(info.splits)}"
        ) from error
    names = [os.path.join(data_dir, os.path.basename(i.filename)) for i in instructions]
    shards = [ShardSlice(name, i.skip, i.take) for name, i in zip(names, instructions, strict=True)]
    if not sum(shard.take for shard in shards):
        sizes = ", ".join(f"{name} of {one.num_examples}" for name, one in info.splits.items())
        raise ValueError(
            f"{field}: split {split!r} of {data_dir} is empty: take more of its records, {sizes}"
        )
    return shards


@contextlib.contextmanager
def _metadata(data_dir: str | os.PathLike) -> Iterator[str | os.PathLike]:
    """A folder of this machine with what TFDS reads; of a dataset in a bucket, copies of it."""
    if not bucket_files.is_address(data_dir):
        yield data_dir
        return
    with tempfile.TemporaryDirectory() as copies:
        for name in _METADATA:
            with contextlib.suppress(FileNotFoundError):  # said by who reads it
                data = bucket_files.read(os.path.join(data_dir, name))
                pathlib.Path(copies, name).write_bytes(data)
        yield copies
