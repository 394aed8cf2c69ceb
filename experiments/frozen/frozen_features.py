"""A recipe's frozen features: the cache of every picture, and the map that aligns them with words.

For recipes with `data.cache_features`. Both are made once, kept beside the datasets, and the same
for training, for the report and for benchmarks.
"""

import pathlib
from typing import Any

import numpy as np

from experiments.frozen import alignment, feature_cache
from experiments.training import datasets
from flamingo_jax.config import from_dict
from flamingo_jax.model_directory import ModelCard
from flamingo_jax.tokenizer import Tokenizer

Tree = Any


def check(config: Any) -> None:
    """ValueError for a map that cannot be found, or features of an encoder that is trained."""
    if config.data.cache_features and "vision" in config.model.trained:
        raise ValueError(
            "data.cache_features=True keeps what a frozen encoder makes of a picture: set it to "
            "False, or leave 'vision' out of model.trained"
        )
    width, want = config.model.vision.aligned_width, config.model.language_model.width
    if width not in (None, want):
        raise ValueError(
            f"model.vision.aligned_width={width}: features are aligned with the language model's "
            f"embeddings, so use {want}, or None"
        )
    if width is not None and not config.data.cache_features:
        raise ValueError(
            f"model.vision.aligned_width={width} is found from cached features: set "
            "data.cache_features=True, or aligned_width to None"
        )


def prepare(
    config: Any, card: ModelCard, frozen: Tree, tokenizer: Tokenizer
) -> tuple[feature_cache.FeatureCache, Tree]:
    """The cache of what the recipe reads, held-out pictures too, and `frozen` with the map in it.

    Nothing to do with the map where the recipe has none.
    """
    heldout = config.data.heldout
    read = [(d.path, d.split) for d in config.data.train.values() if d.kind != "text"]
    if heldout.path and config.report.num_queries:
        read += [(heldout.path, heldout.split), (heldout.path, heldout.support)]
    if config.validate_every:
        validated = config.data.validation.values()
        read += [(d.path, d.split) for d in validated if d.kind != "text"]
    folders: dict[pathlib.Path, list[str]] = {}
    for path, split in read:
        splits = folders.setdefault(datasets.folder(config, path), [])
        splits += [split] * (split not in splits)
    folders = {folder: "+".join(splits) for folder, splits in folders.items()}
    encoder = {"encoder": frozen["vision"]["encoder"]}
    cache = feature_cache.open_or_build(card, encoder, folders, datasets.local_dir(config))
    if card.config.vision.aligned_width is None or config.init_from:  # which has its own map
        return cache, frozen
    pairs = [
        document
        for dataset in config.data.train.values()
        if dataset.kind == "pair"
        for document in datasets.documents(config, dataset.path, dataset.split)
    ]
    settings = from_dict(alignment.AlignmentConfig, config.alignment.to_dict(), "alignment.")
    embedding = np.asarray(frozen["language_model"]["embedding"])
    found = alignment.open_or_fit(cache, pairs, tokenizer, embedding, settings, config.seed)
    return cache, frozen | {"vision": frozen["vision"] | {"alignment": found}}
