"""COCO captions: one pair for each caption of each picture.

Inputs are COCO's own `captions_SPLIT.json`, or the Karpathy split's `dataset_coco.json` (or
`dataset_flickr30k.json`), of which only train and restval are taken: val and test are what models
are evaluated on. Pictures lie in `--media`, under their file name, `SPLIT/` before it
where there are several folders, or in COCO's zips there. All captions of a picture stand in each
record's metadata as `references`.
"""

import argparse
import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from data_pipelines.building.counts import Counts
from data_pipelines.errors import BadRecord
from data_pipelines.records import Document
from data_pipelines.sources.input_names import NamedByInput
from data_pipelines.sources.media_files import MediaFiles, check_folder, checked_picture
from data_pipelines.sources.source import Dropped


@dataclasses.dataclass(frozen=True)
class _Caption:
    id: str
    text: Any
    files: tuple[Any, ...]  # where the picture may lie
    references: tuple[str, ...]
    licence: str


@dataclasses.dataclass(frozen=True)
class Coco(NamedByInput):
    """Captions of JSON files, each read whole (COCO's largest takes 0.4 GB of memory)."""

    media: str
    splits: tuple[str, ...] = ("train", "restval")  # of a Karpathy file
    licence: str = "unknown"

    def items(self, paths: Sequence[str]) -> Iterator[_Caption | Dropped]:
        for path in paths:
            try:
                table = json.loads(epath.Path(path).read_bytes())
                read = self._official if "annotations" in table else self._karpathy
                captions = list(read(path, table))
            except (OSError, ValueError, RecursionError) as error:
                yield Dropped("bad_json", f"{path}: {error}")
            except (KeyError, TypeError, AttributeError) as error:
                yield Dropped("bad_captions", f"{path}: not COCO's layout: {error!r}")
            else:
                yield from captions

    def convert(self, item: _Caption, counts: Counts) -> Document:
        del counts  # a pair whose picture is bad is dropped as a whole
        if not isinstance(item.text, str):
            raise BadRecord("no_caption", f"coco {item.id}: the caption is {item.text!r}")
        if not all(isinstance(file, str) for file in item.files):
            raise BadRecord("no_file_name", f"coco {item.id}: the picture's file is {item.files}")
        return Document(
            id=f"coco/{item.id}",
            text=item.text.strip(),
            media_positions=(0,),
            media=(checked_picture(MediaFiles(self.media).read(*item.files), item.files[0]),),
            metadata={
                "source": "coco",
                "licence": item.licence,
                "references": [text for text in item.references if _is_text(text)],
            },
        )

    def stem(self, path: str) -> str:
        return str(pathlib.PurePosixPath(path).with_suffix(""))

    def _official(self, path: str, table: dict) -> Iterator[_Caption]:
        name = self.input_name(path)
        licences = {entry["id"]: entry.get("url") for entry in table.get("licenses", ())}
        of_image = collections.defaultdict(list)
        for annotation in table["annotations"]:
            of_image[annotation["image_id"]].append(annotation)
        split = pathlib.PurePosixPath(path).stem.removeprefix("captions_")
        for image in table["images"]:
            annotations = of_image[image["id"]]
            references = tuple(annotation["caption"] for annotation in annotations)
            for annotation in annotations:
                yield _Caption(
                    f"{name}/{annotation['id']}",
                    annotation["caption"],
                    (image["file_name"], f"{split}/{image['file_name']}"),
                    references,
                    licences.get(image.get("license")) or self.licence,
                )

    def _karpathy(self, path: str, table: dict) -> Iterator[_Caption]:
        name = self.input_name(path)
        for image in table["images"]:
            if image["split"] not in self.splits:
                continue
            file = image["filename"]
            files = (f"{image['filepath']}/{file}", file) if "filepath" in image else (file,)
            references = tuple(sentence["raw"] for sentence in image["sentences"])
            for sentence in image["sentences"]:
                number = f"{name}/{sentence['sentid']}"
                yield _Caption(number, sentence["raw"], files, references, self.licence)


def _is_text(value: Any) -> bool:
    """Whether it can stand in a record, which a lone surrogate of JSON cannot."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `--source=coco`."""
    parser.add_argument("--media", metavar="DIR", required=True, help="where the pictures lie")
    parser.add_argument(
        "--splits", default="train,restval", help="of a Karpathy file; default: train,restval"
    )
    parser.add_argument("--licence", default="unknown", help="of pictures that name none")


def source(args: argparse.Namespace) -> Coco:
    """The source that the flags describe; ValueError without its folder."""
    check_folder("--media", args.media)
    return Coco(args.media, tuple(args.splits.split(",")), args.licence)
