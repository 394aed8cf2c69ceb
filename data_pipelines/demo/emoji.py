"""The demo's real data: pictures of emoji with their names, as pairs and as pages, built with TFDS.

`emoji_pairs` has the splits `train` and `heldout` (Fluent pictures of concepts that no training
split holds, by any artist), and `train_flags` and `heldout_flags` beside them: flags are a group of
their own, which the demo leaves out. `emoji_pages` has `train`, made of the pictures of `train`.
Paper: section 2.4, image-text pairs and M3W; the pictures are public where the paper's are not.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from data_pipelines import progress_bar
from data_pipelines.building.tfds_writer import build, is_built
from data_pipelines.demo.emoji_concepts import Emoji, load_emoji
from data_pipelines.demo.emoji_pages import draw_pages
from data_pipelines.demo.emoji_pictures import ARTISTS, Picture, draw_pictures
from data_pipelines.fetch import fetch
from data_pipelines.records import Document, features, to_example, validate

# Raise it with any change of names, pictures, split or pages; a data folder keeps the old ones.
_VERSION = "1.1.0"
_PAIR_SPLITS = ("train", "heldout", "train_flags", "heldout_flags")


def pair(picture: Picture) -> Document:
    """A picture and its CLDR name; other human names are `references` in the metadata."""
    emoji, artist = picture.emoji, picture.artist
    return Document(
        id=f"emoji/{picture.key}",
        text=emoji.name,
        media_positions=(0,),
        media=(picture.data,),
        metadata={
            "source": artist.package,
            "artist": artist.key,
            "credit": artist.credit,
            "licence": artist.licence,
            "concept": emoji.concept,
            "group": emoji.group,
            "subgroup": emoji.subgroup,
            "references": list(emoji.references),
            "tags": list(emoji.tags),
        },
    )


def split_of(emoji: Emoji) -> str:
    """The split of `emoji_pairs` that pictures of `emoji` belong to."""
    return ("heldout" if emoji.held_out else "train") + ("_flags" if emoji.is_flag else "")


class _EmojiBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the two builders share: the pictures, drawn here unless somebody has drawn them."""

    VERSION = tfds.core.Version(_VERSION)
    pictures: Sequence[Picture] | None = None
    tick: Callable[[int], Any] = staticmethod(lambda num_pictures: None)  # progress of writing

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=features(),
            citation="; ".join(f"{artist.credit} ({artist.licence})" for artist in ARTISTS),
        )

    def _drawn(self) -> Sequence[Picture]:
        if self.pictures is None:
            self.pictures = tuple(draw_pictures(_load_emoji(), tick=lambda: None))
        return self.pictures

    def _examples(self, documents: Iterable[Document]) -> Iterator[tuple[str, dict[str, Any]]]:
        for document in documents:
            yield document.id, to_example(validate(document))
            self.tick(len(document.media))


class EmojiPairs(_EmojiBuilder):
    """Pictures of emoji by several artists, each with its CLDR name, split by concept."""

    def _split_generators(self, dl_manager):
        del dl_manager  # packages come by `fetch`
        return {split: self._generate_examples(split) for split in _PAIR_SPLITS}

    def _generate_examples(self, split: str):
        return self._examples(pair(p) for p in self._drawn() if split_of(p.emoji) == split)


class EmojiPages(_EmojiBuilder):
    """Pages of three to eight emoji with their names between, of the training concepts."""

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        trained = [picture for picture in self._drawn() if split_of(picture.emoji) == "train"]
        return self._examples(draw_pages(trained))


def prepare(data_dir: str | os.PathLike) -> dict[str, tfds.core.DatasetBuilder]:
    """Builds what `data_dir` lacks of both datasets and returns their builders by name.

    Brings the packages first where they are not cached (30 MB). The same packages give the same
    records. Raises FetchError.
    """
    builders = {cls.name: cls(data_dir=os.fspath(data_dir)) for cls in (EmojiPairs, EmojiPages)}
    missing = [builder for builder in builders.values() if not is_built(builder)]
    if not missing:
        return builders
    emoji = _load_emoji()
    for artist in ARTISTS:
        fetch(artist.package)  # before the bar, which its lines would break
    with progress_bar.bar(len(ARTISTS) * len(emoji), "building emoji data", "pictures") as bar:
        pictures = tuple(draw_pictures(emoji, tick=bar.update))
        trained = sum(split_of(picture.emoji) == "train" for picture in pictures)
        # A training picture stands in one pair and on about four pages.
        placements = {EmojiPairs.name: len(pictures), EmojiPages.name: 4 * trained}
        bar.total += sum(placements[builder.name] for builder in missing)
        for builder in missing:
            builder.pictures, builder.tick = pictures, bar.update
            build(builder)
        bar.total = bar.n
    return builders


def _load_emoji() -> list[Emoji]:
    return load_emoji(fetch("emojibase-data") / "package" / "en")
