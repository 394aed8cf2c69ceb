"""Short videos with a caption: WebVid's CSV tables, and the downloaded files beside them.

Columns `videoid`, `contentUrl`, `duration` (ISO 8601, such as PT00H00M21S), `page_dir`, `name` (the
caption). In `--media` a video is `PAGE_DIR/VIDEOID.mp4` or `VIDEOID.mp4`, or lies under such a name
in a tar or a zip there.
"""

import argparse
import csv
import dataclasses
from collections.abc import Iterator, Sequence

from data_pipelines.building.counts import Counts
from data_pipelines.errors import BadRecord
from data_pipelines.records import Document
from data_pipelines.sources.lines import lines
from data_pipelines.sources.media_files import MediaFiles, check_folder, checked_video
from data_pipelines.sources.source import Dropped, Source

_REQUIRED = ("videoid", "name")
_EXTENSIONS = (".mp4", ".webm", ".mov", ".mkv")


@dataclasses.dataclass(frozen=True)
class WebVid(Source):
    """The rows of CSV files with a header."""

    media: str
    licence: str = "unknown"

    def items(self, paths: Sequence[str]) -> Iterator[dict[str, str] | Dropped]:
        for path in paths:
            damage: list[Dropped] = []
            table = csv.DictReader(_text(path, damage), strict=True)
            try:
                columns = table.fieldnames or ()
            except csv.Error as error:
                yield Dropped("bad_csv", f"{path}: its first line: {error}")
                continue
            if missing := [name for name in _REQUIRED if name not in columns]:
                yield Dropped("no_column", f"{path}: no column {missing[0]!r} in its first line")
                continue
            while True:
                try:
                    row = next(table)
                except StopIteration:
                    break
                except csv.Error as error:
                    yield Dropped("bad_csv", f"{path}: line {table.line_num}: {error}")
                else:
                    yield row
            yield from damage

    def convert(self, item: dict[str, str], counts: Counts) -> Document:
        del counts  # a pair whose video is bad is dropped as a whole
        number, caption = item["videoid"], item["name"]
        if not number or not caption:
            raise BadRecord("bad_row", f"webvid {number!r}: no videoid or no name")
        try:
            caption.encode()
        except UnicodeEncodeError as error:
            raise BadRecord("not_utf8", f"webvid {number}: the caption is not UTF-8") from error
        folders = (f"{item['page_dir']}/", "") if item.get("page_dir") else ("",)
        names = [folder + number + end for folder in folders for end in _EXTENSIONS]
        return Document(
            id=f"webvid/{number}",
            text=caption.strip(),
            media_positions=(0,),
            media=(checked_video(MediaFiles(self.media).read(*names), f"webvid {number}"),),
            metadata={
                "source": "webvid",
                "url": item.get("contentUrl") or "",
                "duration": item.get("duration") or "",
                "licence": self.licence,
            },
        )


def _text(path: str, damage: list[Dropped]) -> Iterator[str]:
    """Lines as text, bytes that are no UTF-8 as surrogates; unreadable parts go to `damage`."""
    for line in lines(path):
        if isinstance(line, Dropped):
            damage.append(line)
        else:
            yield line.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `--source=webvid`."""
    parser.add_argument("--media", metavar="DIR", required=True, help="where the videos lie")
    parser.add_argument("--licence", default="unknown", help="kept in the records' metadata")


def source(args: argparse.Namespace) -> WebVid:
    """The source that the flags describe; ValueError without its folder."""
    check_folder("--media", args.media)
    return WebVid(args.media, args.licence)
