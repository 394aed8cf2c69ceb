"""The datasets of a recipe: prepared on disk, opened as streams, read whole where small."""

import collections
import dataclasses
import pathlib
from typing import Any

import numpy as np

from data_pipelines import records
from data_pipelines.demo import emoji, synthetic
from data_pipelines.errors import BadRecord
from data_pipelines.reading import bucket_files
from data_pipelines.reading.documents import read as documents_of
from data_pipelines.reading.record_index import RecordIndex
from data_pipelines.reading.splits import shard_slices
from data_pipelines.reading.versions import newest_versions
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.cache import cache_dir
from flamingo_jax.eval.few_shot import NUM_ZERO_SHOT_TEXTS
from flamingo_jax.eval.prompt_template import PromptTemplate

SOURCES = {"": None, "emoji": emoji.prepare, "synthetic": synthetic.prepare}


def local_dir(config: Any) -> pathlib.Path:
    """The folder of what is made here, of the recipe's datasets too unless they are in a bucket.

    In silence an empty `data.dir`, as of a shell variable that is not set, would be the current
    folder: a ValueError.
    """
    given = config.data.dir
    if given == "":
        raise ValueError("data.dir is empty: give a folder, or leave it out")
    in_cache = given is None or bucket_files.is_address(given)
    return cache_dir() / "datasets" if in_cache else pathlib.Path(given)


def lock_dir(config: Any) -> pathlib.Path:
    """Where processes of this machine wait for each other while something is made.

    `local_dir`, unless it is not there and nothing is built in it: a slip in `data.dir`.
    """
    folder = local_dir(config)
    return folder if config.data.source or folder.is_dir() else cache_dir() / "datasets"


def prepare(config: Any) -> None:
    """Builds what the recipe's source lacks; ValueError for a source that does not exist."""
    source = config.data.source
    if source not in SOURCES:
        raise ValueError(f"unknown data.source={source!r}: use one of {sorted(SOURCES)}")
    if source and bucket_files.is_address(config.data.dir or ""):
        raise ValueError(
            f"data.source={source!r} builds on a disk, not in data.dir={config.data.dir}: give a "
            "folder, or set data.source to '' to read what is there"
        )
    if build := SOURCES[source]:
        build(local_dir(config))


def stream_configs(config: Any) -> list[StreamConfig]:
    """A `StreamConfig` for every training dataset of the recipe; ValueError for one not there."""
    streams = []
    for name, dataset in config.data.train.items():
        field = f"data.train.{name}"
        if not 0 <= dataset.weight < float("inf"):
            raise ValueError(f"{field}.weight={dataset.weight}: use 0 or more")
        root = folder(config, dataset.path, f"{field}.path")
        _num_records(root, dataset.split, f"{field}.split")
        shared = {"seed": config.seed, "max_skipped_share": config.data.max_skipped_share}
        streams.append(StreamConfig.of(name, dataset, data_dir=str(root), **shared))
    return streams


def validation_configs(config: Any) -> dict[str, StreamConfig]:
    """A `StreamConfig` for every dataset that validation reads; ValueError for one too small.

    Which records are read does not depend on the recipe's seed: runs that differ in it compare.
    With validate_every=0 there are none.
    """
    streams = {}
    if not config.validate_every:
        return streams
    for name, dataset in config.data.validation.items():
        field = f"data.validation.{name}"
        root = folder(config, dataset.path, f"{field}.path")
        there = _num_records(root, dataset.split, f"{field}.split")
        share = config.data.max_skipped_share
        stream = StreamConfig.of(field, dataset, data_dir=str(root), max_skipped_share=share)
        asked = stream.batch_size * stream.pairs_per_row
        if asked * config.validation_batches > there:
            raise ValueError(
                f"{field}: validation_batches={config.validation_batches} of {asked} records each, "
                f"but split {dataset.split!r} of {root} has {there}: "
                + (f"use {there // asked} or fewer" if there >= asked else "use smaller batches")
            )
        # Drawn from the whole split, whose beginning may be of one kind.
        streams[name] = dataclasses.replace(stream.for_evaluation(), shuffle=True)
    return streams


def weights(config: Any) -> dict[str, float]:
    """The loss weight (the paper's lambda) of every training dataset."""
    return {name: dataset.weight for name, dataset in config.data.train.items()}


def folder(config: Any, path: str, field: str = "") -> pathlib.Path:
    """The newest version of dataset `path`, which recipe key `field` names; ValueError for none."""
    where = field and f"{field}={path!r}: "
    root = _root(config, path)
    found = newest_versions(root)
    if not found:
        mend = (
            "build it there, or let yourself list what the bucket holds"
            if bucket_files.is_address(root)
            else "build it, or set data.source or data.dir"
        )
        raise ValueError(f"{where}no TFDS dataset in {root}: {mend}")
    if len(found) > 1:
        several = list(map(str, found))
        raise ValueError(f"{where}{root} holds {len(found)} datasets: name one of {several}")
    return found[0]


def check_heldout(config: Any) -> None:
    """ValueError where the report asks for more than the held-out pairs hold."""
    settings, where = config.report, config.data.heldout
    if not settings.num_queries:
        return
    PromptTemplate.of_caption(config.caption_template)
    if not where.path:
        raise ValueError(
            f"report.num_queries={settings.num_queries} asks about held-out pairs: name their "
            "dataset in data.heldout.path, or set report.num_queries=0"
        )
    root = folder(config, where.path, "data.heldout.path")
    queries = _num_records(root, where.split, "data.heldout.split")
    examples = _num_records(root, where.support, "data.heldout.support")
    examples -= where.support == where.split  # no query is an example of its own
    # Without shots the prompt still has the texts of some examples.
    shots = max([*settings.shots, NUM_ZERO_SHOT_TEXTS])
    for key, asked, split, there in (
        ("num_candidates", settings.num_candidates, where.split, queries),
        ("shots", shots, where.support, examples),
    ):
        if asked > there:
            raise ValueError(
                f"report.{key}={asked}: split {split!r} of {root} has {there}: use no more"
            )
    if 0 < settings.num_support < shots:
        raise ValueError(
            f"report.num_support={settings.num_support}: report.shots asks for {shots} examples: "
            "use as many or more, or 0 for all"
        )


def documents(config: Any, path: str, split: str) -> list[records.Document]:
    """All records of a small split that can be read."""
    return draw_documents(config, path, split, 0)[0]


def draw_documents(
    config: Any, path: str, split: str, count: int
) -> tuple[list[records.Document], collections.Counter[str]]:
    """`count` records of a split, and how many are bad, by reason; 0: all of them.

    They are drawn by the recipe's seed, the same each time, and only those are read.
    """
    index = RecordIndex(shard_slices(folder(config, path), split, path))
    numbers = np.arange(len(index))
    if 0 < count < len(index):
        drawn = np.random.default_rng(config.seed).choice(len(index), count, replace=False)
        numbers = np.sort(drawn)
    read = list(documents_of(index, numbers.tolist()))
    bad = collections.Counter(one.reason for one in read if isinstance(one, BadRecord))
    return [one for one in read if not isinstance(one, BadRecord)], bad


def _root(config: Any, path: str) -> str | pathlib.Path:
    """An address in a bucket, or a path of this machine: below `data.dir`, unless it is whole."""
    if bucket_files.is_address(path):
        return path
    if bucket_files.is_address(config.data.dir or "") and not pathlib.Path(path).is_absolute():
        return f"{config.data.dir.rstrip('/')}/{path}"
    return local_dir(config) / path


def _num_records(root: pathlib.Path, split: str, field: str) -> int:
    """ValueError where the dataset has no such split."""
    return sum(shard.take for shard in shard_slices(root, split, field))
