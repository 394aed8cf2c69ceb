"""Lines of text files, plain, gzipped or zipped, each with a bound on its length."""

import contextlib
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from etils import epath

from data_pipelines.sources.source import Dropped

MAX_LINE_BYTES = 1 << 28


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
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        yield Dropped("cut_file", f"{path}: {error}")


@contextlib.contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    with epath.Path(path).open("rb") as file:
        if path.endswith(".gz"):
            with gzip.open(file) as unpacked:
                yield unpacked
        elif path.endswith(".zip"):
            with zipfile.ZipFile(file) as archive:
                (name, *others) = archive.namelist()
                if others:
                    raise zipfile.BadZipFile(f"{1 + len(others)} members, want one")
                with archive.open(name) as unpacked:
                    yield io.BufferedReader(unpacked)
        else:
            yield file
