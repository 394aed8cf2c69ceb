"""Whether a model can be trained on as a recipe asks: its architecture and its frozen parts."""

import dataclasses
import pathlib
from typing import Any, TypeVar

from flax import traverse_util

from flamingo_jax import config as config_lib
from flamingo_jax.config import VisionConfig
from flamingo_jax.model_directory import ModelCard, ModelDirectoryError, find, read_card
from flamingo_jax.weights.frozen_parts import Source

T = TypeVar("T")


def check(directory: str | pathlib.Path, card: ModelCard) -> None:
    """ModelDirectoryError unless a finished model has this architecture and these frozen parts.

    More of the frozen parts may be trained than it had trained, and pictures may be of another size
    where the encoder takes any.
    """
    found = read_card(directory)
    if set(found.config.trained) - set(card.config.trained):
        raise ModelDirectoryError(
            f"{find(directory)} has trained {found.config.trained} along, the config asks for "
            f"model.trained={card.config.trained}: name those too, as no source has their weights"
        )
    encoder, asked_px = found.config.vision, card.config.vision.preprocessing.size_px
    if encoder.takes_any_size:
        encoder = _with_pictures_of(encoder, card.config.vision)
    elif (own_px := encoder.preprocessing.size_px) != asked_px:
        raise ModelDirectoryError(
            f"{find(directory)} has model.vision.preprocessing.size_px={own_px}, the config asks "
            f"for {asked_px}: its encoder has positions for {own_px} px alone"
        )
    found = dataclasses.replace(found, config=dataclasses.replace(found.config, vision=encoder))
    if other := difference(found, card):
        key, own, asked = other
        raise ModelDirectoryError(
            f"{find(directory)} has {key}={own}, the config asks for {asked}: "
            "trained parts belong to the frozen ones that they were trained on"
        )


def _with_pictures_of(config: VisionConfig, other: VisionConfig) -> VisionConfig:
    """At the other's size, where the encoder makes as many features of a picture as the other's."""
    size_px = other.preprocessing.size_px
    preprocessing = dataclasses.replace(config.preprocessing, size_px=size_px)
    return dataclasses.replace(config, num_features=other.num_features, preprocessing=preprocessing)


def difference(one: T, other: T) -> tuple[str, Any, Any] | None:
    """The first key of architecture and frozen parts in which they differ, and both its values.

    Of two Flamingos' cards, or of two configs of one part. Which of the frozen parts are trained is
    not compared, nor where they lie.
    """
    a, b = (traverse_util.flatten_dict(_compared(model), sep=".") for model in (one, other))
    differing = (key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key))
    return next(((key, a.get(key), b.get(key)) for key in differing), None)


def _compared(model: Any) -> dict[str, Any]:
    if not isinstance(model, ModelCard):
        return {"model": config_lib.to_dict(model)}
    architecture = dataclasses.replace(model.config, trained=())
    parts = {name: _identity(getattr(model, name)) for name in ("language_model", "vision")}
    return {"model": config_lib.to_dict(architecture)} | parts


def _identity(source: Source) -> dict[str, Any]:
    """What makes frozen weights the same ones, wherever they lie."""
    if source.format == "random":
        return {"format": source.format, "seed": source.seed}
    return {"format": source.format, "sha256": source.sha256}
