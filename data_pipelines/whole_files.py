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

    A full disk's OSError, which names none, names this one.
    """
    target = epath.Path(path)
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            error.filename = str(target)
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
