"""Files in buckets by their address, `gs://BUCKET/PATH`: read by ranges, listed, written.

With tensorstore, by which checkpoints go to buckets too: it waits in C++, so any number of threads
read at once, and tries again by itself where the network or the server fails, ever more slowly, for
some minutes. Credentials are those that Google's tools use (application default credentials).

It does not tell how long a file is, and takes a listing that is refused for an empty one.
"""

import os
from collections.abc import Callable
from typing import TypeVar

import tensorstore as ts

T = TypeVar("T")
READS_AT_ONCE = 128  # of a dataset: 2500 a second where each takes 50 ms
_RETRIES = {"max_retries": 12, "initial_delay": "100ms", "max_delay": "60s"}  # about 4 minutes
_KINDS = {
    "NOT_FOUND": FileNotFoundError,
    "PERMISSION_DENIED": PermissionError,
    "UNAUTHENTICATED": PermissionError,
    "OUT_OF_RANGE": EOFError,
}
_context = ts.Context(
    {
        "gcs_request_concurrency": {"limit": 8 * READS_AT_ONCE},  # of all datasets
        "gcs_request_retries": _RETRIES,
    }
)


def is_address(path: str | os.PathLike) -> bool:
    """Whether it is an address, not a path of this machine."""
    return "://" in os.fspath(path)


def read(path: str | os.PathLike, start: int = 0, stop: int | None = None) -> bytes:
    """Bytes `start` to `stop - 1`; all by default.

    Raises:
      FileNotFoundError, PermissionError: at once.
      EOFError: it ends before `stop`.
      OSError: what did not pass in the time that is waited.
    """
    folder, name = os.path.split(path)
    span = None if (start, stop) == (0, None) else slice(start, stop)
    found = _ask(path, lambda: _open(*_split(folder)).read(name, byte_range=span).result())
    if found.state == "missing":
        raise FileNotFoundError(f"{path}: there is no such file")
    if found.state != "value":
        raise OSError(f"{path}: the server's answer to a read makes no sense")
    return found.value


def exists(path: str | os.PathLike) -> bool:
    """Whether there is such a file; raises as `read` does."""
    try:
        read(path, 0, 1)
    except FileNotFoundError:
        return False
    except EOFError:  # an empty file
        pass
    return True


def names(folder: str | os.PathLike) -> list[str]:
    """Of all files below a folder, from there on and sorted; none where listing is not allowed."""
    bucket, path = _split(folder)
    below = ts.KvStore.KeyRange(path, f"{path[:-1]}0") if path else ts.KvStore.KeyRange()
    found = _ask(folder, lambda: _open(bucket).list(below).result())
    names = (name.decode() for name in found)
    return sorted(name.removeprefix(path) for name in names if name.startswith(path))


def write(path: str | os.PathLike, data: bytes) -> None:
    """A file that is whole or not there; raises as `read` does."""
    folder, name = os.path.split(path)
    _ask(path, lambda: _open(*_split(folder)).write(name, data).result())


def _split(folder: str | os.PathLike) -> tuple[str, str]:
    """The bucket, and the path in it, which ends in a slash unless it is empty."""
    scheme, _, place = os.fspath(folder).partition("://")
    if scheme != "gs":
        raise OSError(f"{os.fspath(folder)}: of addresses those are read that begin with gs://")
    bucket, _, path = place.rstrip("/").partition("/")
    return bucket, f"{path}/" if path else ""


def _open(bucket: str, path: str = "") -> ts.KvStore:
    spec = {"driver": "gcs", "bucket": bucket, "path": path}
    return ts.KvStore.open(spec, context=_context).result()


def _ask(path: str | os.PathLike, question: Callable[[], T]) -> T:
    """tensorstore's ValueErrors as errors of their kinds, which it writes before the text."""
    try:
        return question()
    except ValueError as error:
        kind = str(error).partition(": ")[0]
        said = " ".join(str(error).partition(" [")[0].split())
        raise _KINDS.get(kind, OSError)(f"{os.fspath(path)}: {said}") from error
