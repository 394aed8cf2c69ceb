r"""How long a stream takes to go on after a million examples.

    python -m benchmarks.restart

Writes a dataset of small records (kept in --dir for the next call), opens a stream at its beginning
and behind `--consumed` examples, and times each up to its first batch, in new processes.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import tensorflow as tf
import tensorflow_datasets as tfds

from data_pipelines import commands, records
from data_pipelines.demo import synthetic
from data_pipelines.index import write_indexes
from data_pipelines.streams.stream import Stream
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.tokenizer import Tokenizer

_SHARD_RECORDS = 50_000


def main() -> None:
    """The command; prints seconds from opening the dataset to the first batch."""
    parser = commands.Parser(prog="python -m benchmarks.restart", description=__doc__)
    parser.add_argument("--records", type=int, default=1_500_000)
    parser.add_argument("--consumed", type=int, default=1_000_000)
    parser.add_argument("--dir", default=os.path.join(tempfile.gettempdir(), "restart_benchmark"))
    parser.add_argument("--at", type=int, help="only time this place, in this process")
    args = parser.parse_args()
    folder = pathlib.Path(args.dir) / str(args.records)
    if args.at is not None:
        print(f"{seconds_to_first_batch(folder, args.at, args.records):.2f}")
        return
    if not (folder / "dataset_info.json").is_file():
        write(folder, args.records)
    for indexed in (True, False):
        if indexed:
            write_indexes(folder)
        else:
            for file in (folder / "record_index").iterdir():
                file.unlink()
        for place in (0, args.consumed):
            command = [sys.executable, "-m", "benchmarks.restart", f"--records={args.records}"]
            command += [f"--dir={args.dir}", f"--at={place}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            kind = "with" if indexed else "without"
            print(
                f"example {place} of {args.records} records, {kind} index files: {done.stdout}",
                end="",
            )


def write(folder: pathlib.Path, count: int) -> None:
    """A dataset of `count` copies of one drawn shape, 1 kB each."""
    folder.mkdir(parents=True, exist_ok=True)
    features = records.features()
    (document, *_) = synthetic.pairs("train")
    data = features.serialize_example(features.encode_example(records.to_example(document)))
    shards = -(-count // _SHARD_RECORDS)
    lengths = [min(_SHARD_RECORDS, count - i * _SHARD_RECORDS) for i in range(shards)]
    for number, length in enumerate(lengths):
        path = folder / f"many-train.tfrecord-{number:05d}-of-{shards:05d}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for _ in range(length):
                writer.write(data)
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=[
            tfds.core.SplitInfo(
                name="train",
                shard_lengths=lengths,
                num_bytes=len(data) * count,
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=folder,
                    dataset_name="many",
                    split="train",
                    filetype_suffix="tfrecord",
                ),
            )
        ],
    )


def seconds_to_first_batch(folder: pathlib.Path, index: int, num_records: int) -> float:
    """Of a batch of 64 pairs; imports are not counted."""
    state = {
        "next_index": index,
        "examples": index,
        "skipped": {},
        "num_records": num_records,
        "seed": 0,
    }
    start = time.perf_counter()
    stream = Stream(
        StreamConfig("many", str(folder), "pair", 64),
        Tokenizer.byte_level(),
        preprocessing=ImagePreprocessing(),
        state=state,
    )
    next(stream)
    return time.perf_counter() - start


if __name__ == "__main__":
    commands.run(main)
