"""The datasets of a recipe: prepared on disk, opened as streams, read whole where small."""

import pathlib
from typing import Any

import tensorflow_datasets as tfds

from data_pipelines import emoji, records, synthetic
from data_pipelines.stream_config import StreamConfig
from data_pipelines.versions import newest_versions
from flamingo_jax.cache import cache_dir
from flamingo_jax.eval.captioning_prompt import CaptionTemplate

SOURCES = {"": None, "emoji": emoji.prepare, "synthetic": synthetic.prepare}


def data_dir(config: Any) -> pathlib.Path:
    """The folder of the recipe's datasets."""
    return pathlib.Path(config.data.dir or cache_dir() / "datasets")


def prepare(config: Any) -> None:
    """Builds what the recipe's source lacks; ValueError for a source that does not exist."""
    if config.data.source not in SOURCES:
        raise ValueError(
            f"unknown data.source={config.data.source!r}: use one of {sorted(SOURCES)}"
        )
    if build := SOURCES[config.data.source]:
        build(data_dir(config))


def stream_configs(config: Any) -> list[StreamConfig]:
    """A `StreamConfig` for every training dataset of the recipe; ValueError for one not there."""
    streams = []
    for name, dataset in config.data.train.items():
        root = folder(config, dataset.path)
        _num_records(root, dataset.split, f"data.train.{name}.split")
        shared = {"seed": config.seed, "max_skipped_share": config.data.max_skipped_share}
        streams.append(StreamConfig.of(name, dataset, data_dir=str(root), **shared))
    return streams


def weights(config: Any) -> dict[str, float]:
    """The loss weight (the paper's lambda) of every training dataset."""
    return {name: dataset.weight for name, dataset in config.data.train.items()}


def folder(config: Any, path: str) -> pathlib.Path:
    """The newest version of dataset `path`; ValueError where it is not there."""
    root = data_dir(config) / path
    found = newest_versions(root)
    if not found:
        raise ValueError(f"no TFDS dataset in {root}: build it, or set data.source or data.dir")
    if len(found) > 1:
        raise ValueError(f"{root} holds {len(found)} datasets: name one of {list(map(str, found))}")
    return found[0]


def check_heldout(config: Any) -> None:
    """ValueError where the report asks for more than the held-out pairs hold."""
    settings, where = config.report, config.data.heldout
    if not settings.num_queries:
        return
    CaptionTemplate(config.caption_template)
    if not where.path:
        raise ValueError(
            f"report.num_queries={settings.num_queries} asks about held-out pairs: name their "
            "dataset in data.heldout.path, or set report.num_queries=0"
        )
    root = folder(config, where.path)
    queries = _num_records(root, where.split, "data.heldout.split")
    examples = _num_records(root, "train", "examples of the report")
    for key, asked, there in (
        ("num_candidates", settings.num_candidates, queries),
        ("shots", max(settings.shots, default=0), examples),
    ):
        if asked > there:
            raise ValueError(f"report.{key}={asked}: {root} has {there}: use no more")


def _num_records(root: pathlib.Path, split: str, field: str) -> int:
    """Of a split; ValueError where the dataset has none of that name."""
    splits = tfds.builder_from_directory(root).info.splits
    try:
        return splits[split].num_examples
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{field}: no split {split!r} in {root}: it has {sorted(splits)}"
        ) from error


def documents(config: Any, path: str, split: str) -> list[records.Document]:
    """All records of a small split."""
    builder = tfds.builder_from_directory(folder(config, path))
    return [records.from_example(e) for e in tfds.as_numpy(builder.as_dataset(split=split))]
