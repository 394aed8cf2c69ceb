"""WARC files, plain or compressed record by record, with the pictures that were crawled into them.

A picture may lie in another file than its page: before pages are read, every file is looked through
for pictures, and where they lie is kept by a hash of their address. Damage costs the record that it
is in: reading goes on at the next place that looks like the beginning of one.
"""

import contextlib
import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, ClassVar
from urllib.parse import urlsplit

import numpy as np
from etils import epath
from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecord

from data_pipelines.building.near_duplicates import hash64
from data_pipelines.building.page_encoding import MAX_HTML_BYTES
from data_pipelines.building.page_images import MAX_IMAGE_BYTES
from data_pipelines.building.sorted_rows import find_rows
from data_pipelines.errors import BadRecord
from data_pipelines.sources import pages
from data_pipelines.sources.pages import Pages, RawPage
from data_pipelines.sources.source import Dropped
from flamingo_jax.images import BadMedia

INDEX_ROW = np.dtype([("key", "<u8"), ("file", "<u4"), ("offset", "<u8")])
_STARTS = (b"\x1f\x8b\x08", b"WARC/1.")  # of a record, compressed and plain
_HTML = ("text/html", "application/xhtml+xml")
_IMAGE_NAMES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
_KINDS = ("response", "resource")
_FOUND = "200"
_SCANNED_BYTES = 1 << 16
# What warcio and the libraries below it raise for damage: its own, of zlib, and of wrong headers,
# AttributeError where one that it relies on is gone.
_DAMAGE = (
    *(ArchiveLoadFailed, zlib.error, EOFError, OSError),
    *(AttributeError, ValueError, KeyError, IndexError),
)


@dataclasses.dataclass(frozen=True)
class Warc(Pages):
    """Pages that were answered with status 200, as HTML."""

    index_dtype: ClassVar[np.dtype] = INDEX_ROW
    paths: tuple[str, ...] = ()  # all input files, as the index numbers them
    index_paths: tuple[str, ...] = ()

    def items(self, paths: Sequence[str]) -> Iterator[RawPage | Dropped]:
        for path in paths:
            for number, (_, record) in enumerate(_records(path)):
                place = f"{path}, record {number}"
                if isinstance(record, Dropped):
                    yield dataclasses.replace(record, message=f"{place}: {record.message}")
                elif record.rec_type in _KINDS and _content_type(record)[0] in _HTML:
                    yield _page(record, place)

    def index(self, path: str, number: int) -> np.ndarray:
        found = [
            (_key(_url(record)), number, offset)
            for offset, record in _records(path)
            if not isinstance(record, Dropped) and record.rec_type in _KINDS and _is_image(record)
        ]
        return np.array(found, INDEX_ROW)

    def bind(self, paths: Sequence[str], index_paths: Sequence[str]) -> "Warc":
        return dataclasses.replace(self, paths=tuple(paths), index_paths=tuple(index_paths))

    def image(self, url: str, page: RawPage) -> bytes:
        if url[:5].lower() == "data:":
            return super().image(url, page)
        rows = find_rows(self.index_paths, _key(url), INDEX_ROW)
        if not len(rows):
            return super().image(url, page)
        own = np.array([page.place.startswith(f"{self.paths[row['file']]},") for row in rows])
        row = rows[np.lexsort((rows["offset"], rows["file"], ~own))[0]]
        return _read_image(self.paths[row["file"]], int(row["offset"]))


def add_flags(parser: Any) -> None:
    """Flags of pages; a WARC file needs no further ones."""
    pages.add_flags(parser)


def source(args: Any) -> Warc:
    """The source that the flags describe; ValueError."""
    return Warc(**pages.flags(args))


def _records(path: str) -> Iterator[tuple[int, ArcWarcRecord | Dropped]]:
    """Offset and record, one after the other; a `Dropped` in place of what is damaged."""
    try:
        with epath.Path(path).open("rb") as file:
            start: int | None = 0
            while start is not None:
                start = yield from _records_from(file, start)
    except OSError as error:
        yield 0, Dropped("unreadable", f"{path}: {error}")


class _Records(ArchiveIterator):
    """warcio's reader, without the lines that it prints for a wrong length; we count instead."""

    INC_RECORD = ""


def _records_from(file: BinaryIO, start: int) -> Iterator:
    """Records from `start` to the end or to damage; returns where to go on behind the damage."""
    file.seek(start)
    records = _Records(file)
    while True:
        try:
            record = next(records, None)
        except _DAMAGE as error:
            yield records.offset, Dropped("damaged_record", f"{type(error).__name__}: {error}")
            return _next_start(file, max(start, records.offset) + 1)
        if record is None:
            return None
        yield records.offset, record


def _next_start(file: BinaryIO, start: int) -> int | None:
    """Where, from `start` on, something looks like the beginning of a record."""
    overlap = max(map(len, _STARTS)) - 1
    while True:
        file.seek(start)
        data = file.read(_SCANNED_BYTES)
        places = [place for mark in _STARTS if (place := data.find(mark)) >= 0]
        if places:
            return start + min(places)
        if len(data) <= overlap:
            return None
        start += len(data) - overlap


def _page(record: ArcWarcRecord, place: str) -> RawPage | Dropped:
    if (status := _status(record)) != _FOUND:
        return Dropped("http_status", f"{place}: status {status!r}")
    try:
        data = _payload(record, MAX_HTML_BYTES)
    except BadRecord as error:
        return Dropped(error.reason, f"{place}: {error}")
    return RawPage(
        data=data,
        url=_url(record),
        charset=_content_type(record)[1],
        place=place,
        date=record.rec_headers.get_header("WARC-Date") or "",
    )


def _payload(record: ArcWarcRecord, limit: int) -> bytes:
    """What was sent, with transfer and content encodings undone; BadRecord."""
    try:
        data = record.content_stream().read(limit + 1)
    except _DAMAGE as error:
        raise BadRecord("damaged_record", f"{type(error).__name__}: {error}") from error
    if len(data) > limit:
        raise BadRecord("too_large", f"more than {limit} bytes")
    if getattr(record.raw_stream, "limit", 0) > 0:
        raise BadRecord("truncated_record", "the record ends before the length it states")
    return data


def _read_image(path: str, offset: int) -> bytes:
    with epath.Path(path).open("rb") as file:
        file.seek(offset)
        try:
            return _payload(next(_Records(file)), MAX_IMAGE_BYTES)
        except BadRecord as error:
            raise BadMedia(error.reason, f"{path} at {offset}: {error}") from error
        except (*_DAMAGE, StopIteration) as error:
            raise BadMedia("damaged_record", f"{path} at {offset}: {error}") from error


def _status(record: ArcWarcRecord) -> str:
    """HTTP's, of what has none that of a good answer."""
    return _FOUND if record.http_headers is None else record.http_headers.get_statuscode()


def _content_type(record: ArcWarcRecord) -> tuple[str, str]:
    """Media type in lower case, and charset, "" where none is stated."""
    headers = record.http_headers or record.rec_headers
    kind, *parameters = (headers.get_header("Content-Type") or "").split(";")
    charset = ""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip("\"'")
    return kind.strip().lower(), charset


def _is_image(record: ArcWarcRecord) -> bool:
    if _status(record) != _FOUND:
        return False
    kind = _content_type(record)[0]
    if kind.startswith("image/"):
        return True
    with contextlib.suppress(ValueError):
        return kind not in _HTML and urlsplit(_url(record)).path.lower().endswith(_IMAGE_NAMES)
    return False


def _url(record: ArcWarcRecord) -> str:
    return (record.rec_headers.get_header("WARC-Target-URI") or "").strip("<> ")


def _key(url: str) -> int:
    """The address without scheme and fragment: pages mix http and https."""
    return hash64("url", url.partition("#")[0].partition("://")[2])
