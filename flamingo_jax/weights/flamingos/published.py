"""A published Flamingo as a whole: its conversion, its tokenizer, and the frozen parts it names."""

import pathlib
from typing import NamedTuple

from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights.encoders import clip_config, clip_tower
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.flamingos import (
    base_models,
    idefics,
    open_flamingo,
    open_flamingo_checkpoint,
)
from flamingo_jax.weights.flamingos.conversion import Conversion
from flamingo_jax.weights.language_models import hf_lm_config


class Part(NamedTuple):
    """A frozen part: a format of `frozen_parts.Source`, and where it lies."""

    format: str
    path: pathlib.Path


class Published(NamedTuple):
    """All that a model directory is made of, but for the hashes of the frozen parts."""

    conversion: Conversion
    tokenizer: Tokenizer
    language_model: Part
    vision: Part
    whole: bool = False  # the frozen parts lie in the same folder


def from_open_flamingo(
    path: pathlib.Path,  # the checkpoint
    lm_path: pathlib.Path | None,  # a folder of transformers
    vision_path: pathlib.Path | None,  # a CLIP tower of transformers or of open_clip
) -> Published:
    """OpenFlamingo v2, or v1's 9B.

    Raises BadWeightsFile where a part is not named, with what it is and how to get it; where one is
    damaged; and where they do not belong together. ValueError for a folder without a tokenizer.
    """
    checkpoint = open_flamingo_checkpoint.read(path)
    if lm_path is None:
        raise BadWeightsFile(f"--lm is missing: {base_models.language_model_wanted(checkpoint)}")
    if vision_path is None:
        raise BadWeightsFile(f"--vision is missing: {base_models.image_tower_wanted(checkpoint)}")
    family, lm = hf_lm_config.read_folder(lm_path)
    tokenizer = Tokenizer.from_huggingface(lm_path)
    tower = clip_tower.recognise(vision_path)
    # Of OpenAI's weights; others are refused where they say so.
    vision = tower.config({"fit": "crop"}, activation="quick_gelu")
    clip_config.check(vision_path, tower.format, vision)
    conversion = open_flamingo.convert(
        checkpoint, lm_path, family, lm, tokenizer.base_vocab_size, vision
    )
    return Published(
        conversion,
        tokenizer.with_conventions(
            conversion.new_tokens, starts_with_bos=conversion.starts_with_bos
        ),
        Part("hf_lm", lm_path),
        Part(tower.format, vision_path),
    )


def from_idefics(folder: pathlib.Path) -> Published:
    """IDEFICS v1, whose folder of transformers holds all of it, in shards of safetensors.

    Raises BadWeightsFile where it is damaged or of something else; ValueError where it has no
    tokenizer.
    """
    conversion = idefics.convert(folder)
    rows = conversion.config.language_model.vocab_size
    tokenizer = Tokenizer.from_huggingface(folder, rows, new_are_there=True)
    return Published(
        conversion,
        tokenizer.with_conventions(
            conversion.new_tokens, starts_with_bos=conversion.starts_with_bos
        ),
        Part("hf_lm", folder),
        Part("hf_clip", folder),
        whole=True,
    )
