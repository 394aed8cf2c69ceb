"""Lines of text files, plain, gzipped or zipped, each with a bound on its length."""

import contextlib
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from etils import epath

from data_pipelines.sources.source import Dropped

MAX_LINE_BYTES = 1 << 28
# What damage in a gzip or a zip is raised as; a name in it that is no text is a ValueError.
ARCHIVE_ERRORS = (
    *(OSError, EOFError, ValueError, RuntimeError),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)


def lines(path: str) -> Iterator[bytes | Dropped]:
    """The lines, without what is blank; `cut_file` once where the rest cannot be read."""
    try:
        with _open(path) as file:
            while line := file.readline(MAX_LINE_BYTES):
                if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    yield Dropped("too_large", f"{path}: a line of over {MAX_LINE_BYTES} bytes")
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_LINE_BYTES)
                elif line.strip():
                    yield line
    except ARCHIVE_ERRORS as error:
        yield Dropped("cut_file", f"{path}: {error}")


@contextlib.contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    with epath.Path(path).open("rb") as file:
        if path.endswith(".gz"):
            with gzip.open(file) as unpacked:
                yield unpacked
        elif path.endswith(".zip"):
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                if len(names) != 1:
                    raise zipfile.BadZipFile(f"{len(names)} members, want one")
                with archive.open(names[0]) as unpacked:
                    yield io.BufferedReader(unpacked)
        else:
            yield file
