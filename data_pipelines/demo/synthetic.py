"""Drawn shapes with captions, in the one record schema: for tests, benchmarks and smoke runs.

`synthetic_pairs` and `synthetic_pages` need no download, take under a second to build and are the
same everywhere. Some pairs of shape and colour are in `heldout` only, though each shape and each
colour is trained on. Bad records of chosen kinds can be put in, to see what is made of them.
"""

import abc
import dataclasses
import functools
import io
import itertools
import os
import random
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import tensorflow_datasets as tfds
from PIL import Image, ImageDraw

from data_pipelines.building.tfds_writer import build
from data_pipelines.records import Document, features, to_example, validate

BadKind = Literal["truncated", "not_an_image", "no_image"]

COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "brown")
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
_SIZE_PX = 64
_NUM_PAGES = 24
_METADATA = {"source": "data_pipelines.demo.synthetic", "licence": "Apache-2.0", "group": "shapes"}


def is_held_out(color: str, shape: str) -> bool:
    """Every fourth of the 48 pairs, 12 in all; no colour and no shape lies in these alone."""
    return (COLORS.index(color) + SHAPES.index(shape)) % 4 == 3


def caption(color: str, shape: str) -> str:
    """Such as "an orange ring"."""
    return f"{'an' if color[0] in 'aeiou' else 'a'} {color} {shape}"


@functools.cache
def draw(color: str, shape: str, variant: int) -> bytes:
    """PNG bytes; `variant` moves the shape and changes its size."""
    rng = random.Random(f"{color}:{shape}:{variant}")
    radius = rng.randint(14, 22)
    x, y = (rng.randint(radius + 2, _SIZE_PX - radius - 3) for _ in range(2))
    image = Image.new("RGB", (_SIZE_PX, _SIZE_PX), "white")
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = x - radius, y - radius, x + radius, y + radius
    match shape:
        case "circle":
            pen.ellipse((left, top, right, bottom), fill=color)
        case "square":
            pen.rectangle((left, top, right, bottom), fill=color)
        case "triangle":
            pen.polygon([(x, top), (right, bottom), (left, bottom)], fill=color)
        case "diamond":
            pen.polygon([(x, top), (right, y), (x, bottom), (left, y)], fill=color)
        case "cross":
            pen.rectangle((left, y - 5, right, y + 5), fill=color)
            pen.rectangle((x - 5, top, x + 5, bottom), fill=color)
        case "ring":
            pen.ellipse((left, top, right, bottom), outline=color, width=6)
        case _:
            raise ValueError(f"shape={shape!r}: use one of {SHAPES}")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def pairs(split: Literal["train", "heldout"]) -> Iterator[Document]:
    """Two pictures of each pair of colour and shape in `split`: 72 in train, 24 in heldout."""
    for color, shape in _combinations(split):
        for variant in range(2):
            yield Document(
                id=f"synthetic/{color}-{shape}-{variant}",
                text=caption(color, shape),
                media_positions=(0,),
                media=(draw(color, shape, variant),),
                metadata=_METADATA
                | {
                    "concept": f"{color} {shape}",
                    "references": [f"{color} {shape}", f"the {shape} is {color}"],
                },
            )


def pages(split: Literal["train", "heldout"]) -> Iterator[Document]:
    """24 pages of two to five pictures; every second one begins with text."""
    rng = random.Random(split)
    combinations = _combinations(split)
    for number in range(_NUM_PAGES):
        text, positions, media, concepts = "Some shapes." if number % 2 else "", [], [], []
        for color, shape in rng.sample(combinations, rng.randint(2, 5)):
            positions.append(len(text.encode()))
            media.append(draw(color, shape, number % 2))
            text += (" " if text else "") + caption(color, shape)
            concepts.append(f"{color} {shape}")
        yield Document(
            id=f"synthetic_page/{split}-{number:02d}",
            text=text,
            media_positions=tuple(positions),
            media=tuple(media),
            metadata=_METADATA | {"concepts": concepts},
        )


def bad_record(kind: BadKind, number: int) -> Document:
    """A record that a reader has to skip and count."""
    good = draw("red", "circle", 0)
    media = {"truncated": (good[: len(good) // 2],), "not_an_image": (b"no picture",)}.get(kind, ())
    return Document(
        id=f"synthetic_bad/{kind}-{number}",
        text="a red circle",
        media_positions=(0,) * len(media),
        media=media,
        metadata=_METADATA,
    )


@dataclasses.dataclass(kw_only=True)
class SyntheticConfig(tfds.core.BuilderConfig):
    """`bad`: kinds of bad records to put into `train`, one record for each entry."""

    bad: tuple[BadKind, ...] = ()


class _SyntheticBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (SyntheticConfig(name="clean", description="No bad records."),)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, description=self.__doc__, features=features())

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in ("train", "heldout")}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for document in self._documents(split):
            yield document.id, to_example(validate(document))
        if split == "train":
            for number, kind in enumerate(self.builder_config.bad):
                bad = bad_record(kind, number)
                yield bad.id, to_example(bad)

    @abc.abstractmethod
    def _documents(self, split: str) -> Iterator[Document]:
        """Of one split."""


class SyntheticPairs(_SyntheticBuilder):
    """Drawn shapes, each with a caption."""

    def _documents(self, split: str) -> Iterator[Document]:
        return pairs(split)


class SyntheticPages(_SyntheticBuilder):
    """Pages of two to five drawn shapes with their captions between."""

    def _documents(self, split: str) -> Iterator[Document]:
        return pages(split)


def prepare(
    data_dir: str | os.PathLike, bad: Sequence[BadKind] = ()
) -> dict[str, tfds.core.DatasetBuilder]:
    """Builds what `data_dir` lacks of both datasets and returns their builders by name.

    `bad` are kinds of bad records to add to both train splits, such as `["truncated"] * 3`.
    """
    config = _config(tuple(bad))
    builders = {}
    for cls in (SyntheticPairs, SyntheticPages):
        builder = cls(data_dir=os.fspath(data_dir), config=config)
        build(builder)
        builders[cls.name] = builder
    return builders


def _config(bad: tuple[BadKind, ...]) -> SyntheticConfig:
    if not bad:
        return _SyntheticBuilder.BUILDER_CONFIGS[0]
    counts = (f"{len(list(group))}_{kind}" for kind, group in itertools.groupby(sorted(bad)))
    return SyntheticConfig(name="-".join(counts), description=f"With {len(bad)} bad.", bad=bad)


def _combinations(split: str) -> list[tuple[str, str]]:
    both = itertools.product(COLORS, SHAPES)
    return [one for one in both if is_held_out(*one) == (split == "heldout")]
