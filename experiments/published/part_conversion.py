"""A published language model or encoder as a folder of ours, and what was done as lines of a table.

The folder is what a part's own training leaves, so recipes name it as they name that:
`pretrained:FOLDER`. `source.json` beside says what it was made of.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from experiments.published import conversion
from flamingo_jax.config import LanguageModelConfig, Precision, VisionConfig
from flamingo_jax.core import params as params_lib
from flamingo_jax.models import vision
from flamingo_jax.weights import stage_folder
from flamingo_jax.weights.encoders import pretrained_encoder, published_encoder
from flamingo_jax.weights.encoders.published_encoder import PublishedEncoder
from flamingo_jax.weights.files import folders
from flamingo_jax.weights.frozen_parts import Source
from flamingo_jax.weights.language_models import pretrained_lm, published_lm
from flamingo_jax.weights.language_models.published_lm import PublishedLM

FORMATS = (*published_lm.FORMATS, *published_encoder.FORMATS)
SOURCE = "source.json"
Part = PublishedLM | PublishedEncoder


class Converted(NamedTuple):
    """What lies in the folder, and what it was made of."""

    part: Part
    source: Source
    dtype: Precision
    field: str  # of a recipe, that takes the folder


def convert(kind: str, path: pathlib.Path, out: pathlib.Path, dtype: Precision) -> Converted:
    """Writes the part at `path`, of a format of FORMATS, in `dtype`, whole or not at all.

    Raises BadWeightsFile or ValueError where it is no such part, or not one whole and finite. An
    encoder is in memory whole, of a language model up to 2 ** 27 numbers at a time, unless it is in
    torch's container of before 1.6.
    """
    is_lm = kind in published_lm.FORMATS
    part = (published_lm if is_lm else published_encoder).read(kind, path)
    source = conversion.named(kind, path)
    _write(part, source, out, dtype)
    return Converted(part, source, dtype, "language_model" if is_lm else "vision")


def _write(part: Part, source: Source, out: pathlib.Path, dtype: Precision) -> None:
    size = params_lib.count(part.params) * np.dtype(dtype).itemsize
    is_lm = isinstance(part, PublishedLM)
    save = pretrained_lm.save if is_lm else pretrained_encoder.save
    with folders.whole(out) as folder:
        with conversion.mebibytes(size, f"writing {out}") as tick:
            save(folder, part.config, part.params, dtype, tick)
        if is_lm:
            part.tokenizer.to_file(folder / stage_folder.TOKENIZER)
        origin = {name: getattr(source, name) for name in ("format", "path", "sha256")}
        (folder / SOURCE).write_text(json.dumps(origin, indent=2) + "\n")


def lines(done: Converted) -> Iterator[str]:
    """Tensors mapped, not needed, unexpected, absent as expected; what it is; how it is named."""
    part, source = done.part, done.source
    yield f"{'tensors':>10}  of the checkpoint"
    yield f"{part.mapped:>10}  {_what(part.config)}"
    for what, number in part.unneeded.items():
        if number:
            yield f"{number:>10}  not needed: {what}"
    yield f"{0:>10}  unexpected"
    for what, number in part.unneeded.items():
        if not number:
            yield f"{'absent':>10}  as expected: {what}"
    for line in _besides(part):
        yield f"{'':>10}  {line}"
    yield f"{'':>10}  read from {source.format}:{source.path}"
    yield f"{'':>10}  SHA-256 {source.sha256}"
    millions = params_lib.count(part.params) / 1e6
    yield f"{'':>10}  {millions:,.1f}M parameters, written in {done.dtype}"


def _what(config: LanguageModelConfig | VisionConfig) -> str:
    if isinstance(config, VisionConfig):
        return f"encoder {config.kind} {config.variant}"
    return (
        f"language model, {config.num_layers} layers of width {config.width}, "
        f"{config.vocab_size} rows"
    )


def _besides(part: Part) -> Iterator[str]:
    """What the user has to agree with in a recipe, and cannot see in the files."""
    config = part.config
    if isinstance(part, PublishedLM):
        yield f"tokenizer of {part.tokenizer.base_vocab_size} ids, positions {config.positions}"
        return
    pictures = config.preprocessing
    yield f"pictures of {pictures.size_px} px, mean {pictures.mean}, deviation {pictures.std}"
    if config.kind == "vit" and config.activation is None:
        yield "the files do not say which activation it has: a recipe's is believed"
    elif activation := vision.activation(config):
        yield f"activation {activation}"
