"""Files that are whole or not there, whenever the process that writes them is killed."""

import contextlib
import errno
import json
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO

from etils import epath

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def open_whole(path: epath.PathLike) -> Iterator[BinaryIO]:
    """A file to write, which gets its name when the block ends without an error.

    A full disk's OSError names it.
    """
    target = epath.Path(path)
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with naming_when_full(target):
            with partial.open("wb") as file:
                yield file
            partial.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming_when_full(path: epath.PathLike) -> Iterator[None]:
    """Around what writes a file: a full disk's OSError, which names none, names this one."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL and error.filename is None:
            error.filename = str(path)
        raise


def write_whole(path: epath.PathLike, data: bytes) -> None:
    """Writes a file in one go."""
    with open_whole(path) as file:
        file.write(data)


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes JSON, the same bytes for the same value."""
    write_whole(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: epath.PathLike) -> Any:
    """Reads JSON."""
    return json.loads(epath.Path(path).read_text())
