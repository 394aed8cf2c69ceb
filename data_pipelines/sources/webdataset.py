"""Image-text pairs in webdataset tars, as img2dataset writes them for LAION, COYO, CC3M and CC12M.

A sample is `KEY.jpg` (or png, jpeg, webp, gif), `KEY.txt` with the caption, and `KEY.json` with the
columns of the source's table. The caption is the text file's; without one, the first of the columns
`caption`, `TEXT` and `text` that there is. Columns that people filter by are kept as metadata.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from data_pipelines.building import evaluation_images
from data_pipelines.building.counts import Counts
from data_pipelines.errors import BadRecord
from data_pipelines.records import Document
from data_pipelines.sources.input_names import NamedByInput
from data_pipelines.sources.media_files import checked_picture
from data_pipelines.sources.source import Dropped
from data_pipelines.sources.tar_members import Sample, samples

_PICTURES = ("jpg", "jpeg", "png", "webp", "gif")
_CAPTIONS = ("caption", "TEXT", "text")  # img2dataset; LAION; COYO
_ADDRESSES = ("url", "URL")
_LICENCES = ("LICENSE", "license")  # LAION's older tables
_KEPT = (
    *("SAMPLE_ID", "id", "similarity", "punsafe", "pwatermark", "NSFW", "sha256"),
    *("clip_similarity_vitb32", "clip_similarity_vitl14", "aesthetic_score_laion_v2"),
    *("nsfw_score_opennsfw2", "nsfw_score_gantman", "watermark_score", "image_phash", "num_faces"),
    *("original_width", "original_height"),
)


@dataclasses.dataclass(frozen=True)
class WebDataset(NamedByInput):
    """The pairs of tars; `licence` is what metadata say where a sample names none."""

    licence: str = "unknown"
    evaluation: bytes = b""  # pictures to keep out, see `evaluation_images`

    def items(self, paths: Sequence[str]) -> Iterator[tuple[str, Sample] | Dropped]:
        for path in paths:
            name = self.input_name(path)
            for sample in samples(path):
                yield sample if isinstance(sample, Dropped) else (f"{name}/{sample.key}", sample)

    def convert(self, item: tuple[str, Sample], counts: Counts) -> Document:
        del counts  # a pair whose picture is bad is dropped as a whole
        name, sample = item
        columns = _columns(name, sample)
        status = columns.get("status", "success")
        if status != "success":
            message = f"{name}: status {status!r}, {columns.get('error_message')}"
            raise BadRecord("not_downloaded", message)
        picture = sample.get(*_PICTURES)
        if picture is None:
            raise BadRecord("no_picture", f"{name}: no .jpg, .png, .webp or .gif")
        metadata = {k: columns[k] for k in _KEPT if columns.get(k) is not None}
        return Document(
            id=f"webdataset/{name}",
            text=_caption(name, sample, columns),
            media_positions=(0,),
            media=(checked_picture(picture.read(), name, self.evaluation),),
            metadata=metadata
            | {
                "source": "webdataset",
                "url": str(_first(columns, _ADDRESSES) or ""),
                "licence": str(_first(columns, _LICENCES) or self.licence),
            },
        )


def _columns(name: str, sample: Sample) -> dict[str, Any]:
    member = sample.get("json")
    if member is None:
        return {}
    try:
        columns = json.loads(member.read())
    except (ValueError, RecursionError) as error:
        raise BadRecord("bad_json", f"{name}: {error}") from error
    if not isinstance(columns, dict):
        raise BadRecord("bad_json", f"{name}: want an object, got {type(columns).__name__}")
    return columns


def _caption(name: str, sample: Sample, columns: dict[str, Any]) -> str:
    if (member := sample.get("txt")) is not None:
        try:
            return member.read().decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise BadRecord("not_utf8", f"{name}: the caption: {error}") from error
    caption = _first(columns, _CAPTIONS)
    if not isinstance(caption, str):
        raise BadRecord("no_caption", f"{name}: neither .txt nor a column {', '.join(_CAPTIONS)}")
    return caption.strip()


def _first(columns: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((columns[name] for name in names if columns.get(name) is not None), None)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `--source=webdataset`."""
    parser.add_argument(
        "--licence", default="unknown", help="of samples that name none; kept in their metadata"
    )
    evaluation_images.add_flag(parser)


def source(args: argparse.Namespace) -> WebDataset:
    """The source that the flags describe; ValueError."""
    return WebDataset(args.licence, evaluation_images.hashes(args.evaluation_images))
