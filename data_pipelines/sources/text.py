"""Texts alone, for a language model to learn from: lines of JSON, or plain files.

A line of a `.jsonl` file (or `.jsonl.gz`, `.jsonl.zip`) is one document, `{"text": .., "url": ..}`;
any other file is one document as it is, of at most as many bytes as a line. Texts are taken as they
are: filter a corpus, and take its duplicates out, before.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import ClassVar

from etils import epath

from data_pipelines.building.counts import Counts
from data_pipelines.errors import BadRecord
from data_pipelines.records import Document
from data_pipelines.sources.input_names import NamedByInput
from data_pipelines.sources.lines import MAX_LINE_BYTES, lines
from data_pipelines.sources.source import Dropped

_OF_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zip")


@dataclasses.dataclass(frozen=True)
class Text(NamedByInput):
    """`field` holds a line's text; `licence` is what metadata say where a line names none."""

    has_media: ClassVar[bool] = False

    field: str = "text"
    licence: str = "unknown"

    def items(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes, bool] | Dropped]:
        """(name, bytes, whether they are a line of JSON)."""
        for path in paths:
            name = self.input_name(path)
            if not path.endswith(_OF_LINES):
                yield _whole(path, name)
                continue
            for number, line in enumerate(lines(path)):
                yield line if isinstance(line, Dropped) else (f"{name}/{number}", line, True)

    def convert(self, item: tuple[str, bytes, bool], counts: Counts) -> Document:
        del counts  # there are no media to leave out
        name, data, is_json = item
        values = self._values(name, data) if is_json else {}
        try:
            text = values[self.field] if is_json else data.decode()
        except UnicodeDecodeError as error:
            raise BadRecord("not_utf8", f"{name}: {error}") from error
        return Document(
            id=f"text/{name}",
            text=text,
            media_positions=(),
            media=(),
            metadata={
                "source": "text",
                "url": str(values.get("url") or ""),
                "licence": str(values.get("licence") or self.licence),
            },
        )

    def _values(self, name: str, data: bytes) -> dict:
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadRecord("bad_json", f"{name}: {error}") from error
        if not isinstance(values, dict) or not isinstance(values.get(self.field), str):
            raise BadRecord("bad_json", f"{name}: want an object with a text {self.field!r}")
        return values


def _whole(path: str, name: str) -> tuple[str, bytes, bool] | Dropped:
    try:
        with epath.Path(path).open("rb") as file:
            data = file.read(MAX_LINE_BYTES + 1)
    except OSError as error:
        return Dropped("cut_file", f"{path}: {error}")
    if len(data) > MAX_LINE_BYTES:
        return Dropped("too_large", f"{path}: over {MAX_LINE_BYTES} bytes")
    return name, data, False


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `--source=text`."""
    parser.add_argument("--field", default="text", help="of a JSON line, that holds its text")
    parser.add_argument("--licence", default="unknown", help="where a line names none")


def source(args: argparse.Namespace) -> Text:
    """The source that the flags describe."""
    return Text(field=args.field, licence=args.licence)
