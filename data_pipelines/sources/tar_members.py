"""The files in a tar, found by walking its headers; nothing is unpacked.

Differs from `tarfile` in what it does with damage: a header that fails its checksum, a member that
would end behind the end of the file, and a name that leaves the archive are told, and the walk goes
on at the next whole header. Names are only names here; no path is ever written to.
"""

import dataclasses
import pathlib
import tarfile
from collections.abc import Iterator

from etils import epath

from data_pipelines.errors import BadRecord
from data_pipelines.sources.source import Dropped

MAX_MEMBER_BYTES = 1 << 28  # 268 MB; what claims more is not read
_GAP_READ = 1 << 16


@dataclasses.dataclass(frozen=True)
class Member:
    """A file in a tar: `size` bytes from `offset` of file `path`."""

    path: str
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The contents; raises BadRecord `too_large`, `cut_tar` or `unreadable`."""
        if self.size > MAX_MEMBER_BYTES:
            raise BadRecord("too_large", f"{self.path}: {self.name} has {self.size} bytes")
        try:
            with epath.Path(self.path).open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise BadRecord("unreadable", f"{self.path}: {self.name}: {error}") from error
        if len(data) < self.size:
            raise BadRecord("cut_tar", f"{self.path}: {self.name} ends after {len(data)} bytes")
        return data


@dataclasses.dataclass(frozen=True)
class Sample:
    """Consecutive members of one key, as webdataset groups them."""

    key: str  # the name up to the first dot behind the last slash
    members: tuple[tuple[str, Member], ...]  # by what stands behind that dot

    def get(self, *extensions: str) -> Member | None:
        """The first member whose extension, or the last part of it, is one of these."""
        for extension, member in self.members:
            if extension in extensions or extension.rpartition(".")[2] in extensions:
                return member
        return None


def samples(path: str) -> Iterator[Sample | Dropped]:
    """A tar's members, grouped."""
    key, group = None, []
    for member in members(path):
        if isinstance(member, Dropped):
            yield member
            continue
        folder, slash, base = member.name.rpartition("/")
        stem, _, extension = base.partition(".")
        if folder + slash + stem != key and group:
            yield Sample(key, tuple(group))
            group = []
        key = folder + slash + stem
        group.append((extension.lower(), member))
    if group:
        yield Sample(key, tuple(group))


def members(path: str) -> Iterator[Member | Dropped]:
    """Regular files in the order of the tar, and a `Dropped` for each damage.

    Reasons: `cut_tar`, `damaged_tar`, `not_a_tar`, `unreadable`, `unsafe_path`, `not_a_file` (such
    as a link).
    """
    try:
        with epath.Path(path).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            if not size:
                yield Dropped("not_a_tar", f"{path} is empty")
                return
            with tarfile.open(fileobj=_Bounded(file), mode="r:", ignore_zeros=True) as tar:
                yield from _walk(path, tar, file, size)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        yield Dropped("not_a_tar", f"{path}: {error}; compressed tars have to be unpacked first")
    except OSError as error:
        yield Dropped("unreadable", f"{path}: {error}")


class _Bounded:
    """The file as `tarfile` sees it: an extension header cannot make it read without a bound."""

    def __init__(self, file):
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_MEMBER_BYTES:
            raise tarfile.InvalidHeaderError(f"a header claims {size} bytes")
        return self._file.read(size)


def _walk(path: str, tar: tarfile.TarFile, file, size: int) -> Iterator[Member | Dropped]:
    expected = 0  # where the next header should stand
    while True:
        member = _next(tar)
        start = size if member is None else member.offset
        if _any_byte(file, expected, start):
            yield Dropped("damaged_tar", f"{path}: no header in bytes {expected} to {start}")
        if member is None:
            return
        expected = tar.offset
        if member.offset_data + member.size > size:
            yield Dropped(
                "cut_tar", f"{path}: {member.name} would end behind the file's {size} bytes"
            )
            expected = tar.offset = _blocks(member.offset_data + 1)  # look for headers behind it
            continue
        if member.isdir():
            continue
        if not member.isreg():
            yield Dropped("not_a_file", f"{path}: {member.name} is a link or a device")
        elif _unsafe(member.name):
            yield Dropped("unsafe_path", f"{path}: {member.name} leaves the archive")
        else:
            yield Member(path, member.name.removeprefix("./"), member.offset_data, member.size)


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The next member, past any header that cannot be read."""
    while True:
        before = tar.offset
        try:
            member = tar.next()
        except (tarfile.TarError, ValueError, OverflowError, OSError):
            tar.offset = max(tar.offset, before + tarfile.BLOCKSIZE)
            tar.fileobj.seek(0, 2)
            if tar.offset >= tar.fileobj.tell():
                return None
            continue
        tar.members = []  # or it keeps all
        return member


def _any_byte(file, start: int, stop: int) -> bool:
    """Whether any byte there is not zero."""
    file.seek(start)
    while start < stop:
        data = file.read(min(_GAP_READ, stop - start))
        if not data:
            return False
        if data.strip(b"\0"):
            return True
        start += len(data)
    return False


def _blocks(offset: int) -> int:
    return -(-offset // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _unsafe(name: str) -> bool:
    parts = pathlib.PurePosixPath(name).parts
    return not parts or name.startswith("/") or ".." in parts
