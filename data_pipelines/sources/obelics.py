"""OBELICS: parquet shards of documents in reading order, texts and pictures taking turns.

Pictures are given by address. In `--media` (a folder, or tars and zips in it) they are looked for
by the SHA-256 of their address in hex, by the address as a path (`HOST/PATH`, as mirroring tools
leave it), and by `formatted_filename`. A column `images` of files in place of addresses is read as
it is. Between two texts stands a blank line, and a picture before it.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow
from etils import epath
from pyarrow import parquet

from data_pipelines.counts import Counts
from data_pipelines.errors import BadRecord
from data_pipelines.records import Document
from data_pipelines.sources.media_files import MediaFiles, checked_picture, url_name
from data_pipelines.sources.source import Dropped, Source
from flamingo_jax.images import BadMedia

_COLUMNS = ("images", "texts", "metadata", "general_metadata")
_ROWS = 64  # read at a time
_LICENCE = "CC-BY-4.0 for the arrangement; text and pictures as on their pages"


@dataclasses.dataclass(frozen=True)
class Obelics(Source):
    """The documents of parquet files."""

    media: str | None = None

    def items(self, paths: Sequence[str]) -> Iterator[tuple[str, dict] | Dropped]:
        for path in paths:
            stem = pathlib.PurePosixPath(path).name.removesuffix(".parquet")
            try:
                with epath.Path(path).open("rb") as file:
                    yield from _rows(path, stem, parquet.ParquetFile(file))
            except (pyarrow.ArrowException, OSError, ValueError) as error:
                yield Dropped("bad_parquet", f"{path}: {error}")

    def convert(self, item: tuple[str, dict], counts: Counts) -> Document:
        name, row = item
        images, texts = row["images"], row["texts"]
        described = _parsed(name, row["metadata"]) or [None] * len(images or ())
        general = _parsed(name, row["general_metadata"]) or {}
        try:
            entries = list(zip(images, texts, described, strict=True))
            url = str(general.get("url") or "")
        except (TypeError, ValueError, AttributeError) as error:
            raise BadRecord("bad_document", f"obelics {name}: lists do not agree") from error
        text, media, positions = "", [], []
        for image, words, about in entries:
            if (image is None) == (words is None):
                raise BadRecord("bad_document", f"obelics {name}: text and picture at one place")
            if words is not None:
                text += ("\n\n" if text else "") + words
                continue
            try:
                media.append(checked_picture(self._picture(image, about)))
                positions.append(len(text.encode()))
            except (BadRecord, BadMedia) as error:
                counts.drop_media(error.reason, f"obelics {name}: {error}")
        return Document(
            id=f"obelics/{name}",
            text=text,
            media_positions=tuple(positions),
            media=tuple(media),
            metadata={"source": "obelics", "url": url, "licence": _LICENCE},
        )

    def _picture(self, image: Any, about: Any) -> bytes:
        if isinstance(image, dict):
            image = image.get("bytes")
        if isinstance(image, bytes):
            return image
        if self.media is None:
            raise BadRecord("not_downloaded", "a picture that is not in the file, and no --media")
        if not isinstance(image, str):
            raise BadRecord("no_address", "a picture without an address")
        names = [url_name(image)]
        place = image.partition("://")[2].partition("?")[0]
        if place and ".." not in place and not place.startswith("/"):
            names.append(place)
        if isinstance(about, dict) and isinstance(about.get("formatted_filename"), str):
            names.append(about["formatted_filename"])
        return MediaFiles(self.media).read(*names)


def _rows(path: str, stem: str, table: parquet.ParquetFile) -> Iterator[tuple[str, dict] | Dropped]:
    """Rows by name; a row group that cannot be read is one `Dropped`."""
    if missing := set(_COLUMNS[:2]) - set(table.schema_arrow.names):
        yield Dropped("no_column", f"{path} has no column {sorted(missing)[0]}")
        return
    columns = [name for name in _COLUMNS if name in table.schema_arrow.names]
    number = 0
    for group in range(table.num_row_groups):
        last = number + table.metadata.row_group(group).num_rows
        try:
            batches = table.iter_batches(_ROWS, row_groups=[group], columns=columns)
            for batch in batches:
                for row in batch.to_pylist():
                    yield f"{stem}/{number}", dict.fromkeys(_COLUMNS) | row
                    number += 1
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            yield Dropped("damaged_row_group", f"{path}: row {number} and on: {error}")
        number = last


def _parsed(name: str, value: str | None) -> Any:
    if value is None:
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError, TypeError) as error:
        raise BadRecord("bad_json", f"obelics {name}: {error}") from error


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `--source=obelics`."""
    parser.add_argument("--media", metavar="DIR", help="where the downloaded pictures lie")


def source(args: argparse.Namespace) -> Obelics:
    """The source that the flags describe."""
    return Obelics(args.media)
