"""OBELICS: parquet shards of documents in reading order, texts and pictures taking turns.

Pictures are given by address. In `--media` (a folder, or tars and zips in it) they are looked for
by the SHA-256 of their address in hex and by the address as a path, `HOST/PATH` or
`HOST/PATH?QUERY`, as mirroring tools leave it; not by `formatted_filename`, which many pictures
share. A column `images` of files in place of addresses is read as it is. Between two texts stands a
blank line, and a picture before it.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow
from etils import epath
from pyarrow import parquet

from data_pipelines.building.counts import Counts
from data_pipelines.errors import BadRecord
from data_pipelines.records import Document
from data_pipelines.sources.input_names import NamedByInput
from data_pipelines.sources.media_files import (
    MediaFiles,
    check_folder,
    checked_picture,
    mirror_name,
    url_name,
)
from data_pipelines.sources.source import Dropped
from flamingo_jax.images import BadMedia

_COLUMNS = ("images", "texts", "metadata", "general_metadata")
_ROWS = 64  # read at a time
_LICENCE = "CC-BY-4.0 for the arrangement; text and pictures as on their pages"


@dataclasses.dataclass(frozen=True)
class Obelics(NamedByInput):
    """The documents of parquet files."""

    media: str | None = None

    def items(self, paths: Sequence[str]) -> Iterator[tuple[str, dict] | Dropped]:
        for path in paths:
            try:
                with epath.Path(path).open("rb") as file:
                    yield from _rows(path, self.input_name(path), parquet.ParquetFile(file))
            except (pyarrow.ArrowException, OSError, ValueError) as error:
                yield Dropped("bad_parquet", f"{path}: {error}")

    def convert(self, item: tuple[str, dict], counts: Counts) -> Document:
        name, row = item
        images, texts = row["images"], row["texts"]
        described = _parsed(name, row["metadata"])
        general = _parsed(name, row["general_metadata"]) or {}
        try:
            entries = list(zip(images, texts, described or [None] * len(images), strict=True))
            url = str(general.get("url") or "")
        except (TypeError, ValueError, AttributeError) as error:
            raise BadRecord("bad_document", f"obelics {name}: lists do not agree") from error
        text, media, positions = "", [], []
        for image, words, _ in entries:
            if (image is None) == (words is None):
                raise BadRecord("bad_document", f"obelics {name}: text and picture at one place")
            if words is not None and not isinstance(words, str):
                raise BadRecord("bad_document", f"obelics {name}: a text that is {words!r:.60}")
            if words is not None:
                text += ("\n\n" if text else "") + words
                continue
            try:
                media.append(checked_picture(self._picture(image)))
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

    def _picture(self, image: Any) -> bytes:
        if isinstance(image, dict):
            image = image.get("bytes")
        if isinstance(image, bytes):
            return image
        if self.media is None:
            raise BadRecord("not_downloaded", "a picture that is not in the file, and no --media")
        if not isinstance(image, str):
            raise BadRecord("no_address", "a picture without an address")
        as_it_is = image.partition("#")[0].partition("://")[2]
        places = dict.fromkeys((as_it_is, mirror_name(image)))
        inside = [p for p in places if p and ".." not in p and not p.startswith("/")]
        return MediaFiles(self.media).read(url_name(image), *inside)

    def stem(self, path: str) -> str:
        return path.removesuffix(".parquet")


def _rows(path: str, name: str, table: parquet.ParquetFile) -> Iterator[tuple[str, dict] | Dropped]:
    """Rows by name; a row group that cannot be read is one `Dropped`, and so is a row."""
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
                for place in range(batch.num_rows):  # together, one bad string would cost all
                    yield _row(f"{name}/{number}", path, batch.slice(place, 1))
                    number += 1
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            yield Dropped("damaged_row_group", f"{path}: row {number} and on: {error}")
        number = last


def _row(name: str, path: str, batch: pyarrow.RecordBatch) -> tuple[str, dict] | Dropped:
    try:
        (row,) = batch.to_pylist()
    except UnicodeDecodeError as error:
        return Dropped("not_utf8", f"{path}: row {name}: {error}")
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        return Dropped("bad_document", f"{path}: row {name}: {error}")
    return name, dict.fromkeys(_COLUMNS) | row


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
    """The source that the flags describe; ValueError without its folder."""
    check_folder("--media", args.media)
    return Obelics(args.media)
