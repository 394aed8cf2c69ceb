"""HTML files, with their pictures beside them: a mirror of a site, or documentation on disk."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, unquote_to_bytes

from data_pipelines.building.page_encoding import MAX_HTML_BYTES
from data_pipelines.sources import pages
from data_pipelines.sources.image_files import read_inside
from data_pipelines.sources.media_files import check_folder
from data_pipelines.sources.pages import Pages, RawPage
from data_pipelines.sources.source import Dropped
from flamingo_jax.images import BadMedia


@dataclasses.dataclass(frozen=True)
class Html(Pages):
    """One page a file; a relative address starts at its folder, one with "/" at `root`."""

    files_per_unit: ClassVar[int] = 256
    root: str = ""  # nothing outside is read; default: the folder that all input files share

    def items(self, paths: Sequence[str]) -> Iterator[RawPage | Dropped]:
        for path in paths:
            try:
                if os.path.getsize(path) > MAX_HTML_BYTES:
                    yield Dropped("too_large", f"{path} has {os.path.getsize(path)} bytes")
                    continue
                data = pathlib.Path(path).read_bytes()
            except OSError as error:
                yield Dropped("unreadable", f"{path}: {error}")
                continue
            place = os.path.relpath(path, self.root)
            yield RawPage(data, url=quote(os.fsencode(place)), place=path)

    def image(self, url: str, page: RawPage) -> bytes:
        if "://" in url or url[:5].lower() == "data:":
            return super().image(url, page)
        path = url.partition("?")[0].partition("#")[0].encode(errors="replace")
        path = os.fsdecode(unquote_to_bytes(path))
        if path.startswith("//"):
            return super().image(f"https:{url}", page)
        if not path:
            raise BadMedia("no_address", "an empty address")
        return read_inside(pathlib.Path(self.root, path.lstrip("/")), pathlib.Path(self.root))

    def bind(self, paths: Sequence[str], index_paths: Sequence[str]) -> "Html":
        del index_paths
        if self.root:
            return self
        return dataclasses.replace(
            self, root=os.path.commonpath([os.path.dirname(p) for p in paths])
        )


def add_flags(parser: Any) -> None:
    """Flags of pages, and where absolute paths begin."""
    parser.add_argument("--root", default="", metavar="DIR", help="the site's root on disk")
    pages.add_flags(parser)


def source(args: Any) -> Html:
    """The source that the flags describe; ValueError."""
    check_folder("--root", args.root)
    return Html(root=args.root, **pages.flags(args))
