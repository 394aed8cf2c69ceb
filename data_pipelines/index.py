r"""Index files for a dataset that has none: where each record begins, 8 bytes a record.

    python -m data_pipelines.index --data=gs://BUCKET/data/pages

`data_pipelines.build` writes them with the shards. Datasets that came about otherwise are read
without them where they lie on a disk, and not in a bucket.
"""

import argparse
import os
import pathlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from data_pipelines import commands, progress_bar
from data_pipelines.reading import bucket_files, record_bounds

_SHARDS_AT_ONCE = 8


def main() -> None:
    """The command; prints how many files it made, and what is wrong with shards."""
    parser = commands.Parser(
        prog="python -m data_pipelines.index",
        description="Writes where the records of a dataset begin, in files beside its shards.",
        epilog="example: python -m data_pipelines.index --data=gs://BUCKET/data/pages",
    )
    data = "a TFDS dataset's folder"
    parser.add_argument("--data", required=True, type=commands.place, metavar="DIR", help=data)
    args = parser.parse_args()
    commands.run(lambda: _index(args))


def _index(args: argparse.Namespace) -> None:
    folder = commands.dataset_folder(args.data)
    with progress_bar.bar(len(_shards(os.fspath(folder))), "indexing", "shards") as bar:
        made = write_indexes(folder, bar.update)
    print(f"{folder}: {len(made)} index files written")
    for shard, fault in made.items():
        if fault:
            print(f"{shard} is damaged: {fault}")


def write_indexes(
    folder: str | os.PathLike, report: Callable[[], object] = lambda: None
) -> dict[str, str | None]:
    """Makes the index files that shards lack; returns those shards, and what is wrong in each.

    `report` is called after each shard of the folder.
    """
    shards, made = _shards(os.fspath(folder)), {}
    with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
        for shard, (lacked, fault) in zip(shards, pool.map(_write_index, shards), strict=True):
            made |= {shard: fault} if lacked else {}
            report()
    return made


def _shards(folder: str) -> list[str]:
    if bucket_files.is_address(folder):
        names = [name for name in bucket_files.names(folder) if "/" not in name]
    else:
        names = [path.name for path in pathlib.Path(folder).iterdir()]
    shards = [name for name in names if ".tfrecord" in name and name[0] != "."]
    return [f"{folder}/{name}" for name in sorted(shards)]


def _write_index(shard: str) -> tuple[bool, str | None]:
    """Whether it lacked one, and what is wrong in the shard."""
    if record_bounds.load(shard) is not None:
        return False, None
    bounds, fault = record_bounds.scan(shard)
    record_bounds.save(shard, bounds)
    return True, fault


if __name__ == "__main__":
    commands.run(main)
