"""The datasets of a recipe: prepared on disk, opened as streams, read whole where small."""

import pathlib
from typing import Any

import tensorflow_datasets as tfds

from data_pipelines import emoji, records, synthetic
from data_pipelines.stream_config import StreamConfig
from flamingo_jax.cache import cache_dir

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
    """A `StreamConfig` for every training dataset of the recipe."""
    return [
        StreamConfig.of(
            name,
            dataset,
            data_dir=str(folder(config, dataset.path)),
            seed=config.seed,
            max_skipped_share=config.data.max_skipped_share,
        )
        for name, dataset in config.data.train.items()
    ]


def weights(config: Any) -> dict[str, float]:
    """The loss weight (the paper's lambda) of every training dataset."""
    return {name: dataset.weight for name, dataset in config.data.train.items()}


def folder(config: Any, path: str) -> pathlib.Path:
    """The newest version of dataset `path`; ValueError where it is not there."""
    root = data_dir(config) / path
    found = sorted(root.glob("**/dataset_info.json"))
    if not found:
        raise ValueError(f"no TFDS dataset in {root}: build it, or set data.source or data.dir")
    return found[-1].parent


def check_heldout(config: Any) -> None:
    """ValueError where the report asks about held-out pairs that are not there."""
    where = config.data.heldout
    if not config.report.num_queries:
        return
    if not where.path:
        raise ValueError(
            f"report.num_queries={config.report.num_queries} asks about held-out pairs: name their "
            "dataset in data.heldout.path, or set report.num_queries=0"
        )
    root = folder(config, where.path)
    splits = tfds.builder_from_directory(root).info.splits
    if missing := {"train", where.split} - set(splits):
        raise ValueError(
            f"data.heldout: {root} has no split {sorted(missing)}: it has {sorted(splits)}; the "
            "report takes examples from train and queries from the other"
        )


def documents(config: Any, path: str, split: str) -> list[records.Document]:
    """All records of a small split."""
    builder = tfds.builder_from_directory(folder(config, path))
    return [records.from_example(e) for e in tfds.as_numpy(builder.as_dataset(split=split))]
