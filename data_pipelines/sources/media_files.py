"""Media that lie beside a dataset's tables: in a folder, and in tars and zips in it.

MMC4, OBELICS and WebVid are tables of addresses; what was downloaded of them lies in files whose
names the tables give, or `url_name` or `mirror_name` does. A file is only ever looked for by a name
that identifies it: never by the last part of an address, which many pictures share.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import zipfile
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from etils import epath

from data_pipelines.building import evaluation_images, near_duplicates
from data_pipelines.errors import BadRecord
from data_pipelines.sources.lines import ARCHIVE_ERRORS
from data_pipelines.sources.tar_members import MAX_MEMBER_BYTES, Member, members
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.images import BadMedia, decode_image
from flamingo_jax.videos import decode_video

_SMALL = ImagePreprocessing(size_px=32)  # decoding to this tells damage at an eighth of the time
_EXTENSIONS = ("", ".jpg", ".jpeg", ".png", ".webp", ".gif")


def url_name(url: str) -> str:
    """The name, but for its extension, of a file downloaded from `url`: SHA-256 of it, in hex."""
    return hashlib.sha256(url.encode()).hexdigest()


def mirror_name(url: str) -> str:
    """`HOST/PATH` of an absolute address, or `HOST/PATH?QUERY`, as `wget --mirror` names its file.

    Never without the query, by which one address may give many pictures. Empty for other addresses.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if not parts.hostname:
        return ""
    query = f"?{unquote(parts.query).replace('/', '%2F')}" if parts.query else ""
    return f"{parts.hostname}/{unquote(parts.path).lstrip('/')}{query}"


def checked_picture(data: bytes, name: str = "", evaluation: bytes = b"") -> bytes:
    """`data` if it can be decoded, and is near none of `evaluation` (see `evaluation_images`).

    Raises BadMedia, with the `name` of what it belongs to.
    """
    with _naming(name):
        if evaluation:
            evaluation_images.check(near_duplicates.small(data), evaluation)
        else:
            decode_image(data, _SMALL)
    return data


def checked_video(data: bytes, name: str) -> bytes:
    """`data` if a frame in the middle of it can be decoded; raises BadMedia with its `name`."""
    with _naming(name):
        decode_video(data, _SMALL, num_frames=1)
    return data


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except BadMedia as error:
        raise BadMedia(error.reason, f"{name}: {error}" if name else str(error)) from error


def check_folder(flag: str, folder: str | None) -> None:
    """ValueError where a flag names a folder that is not there."""
    if folder and "://" not in folder and not pathlib.Path(folder).is_dir():
        raise ValueError(f"{flag}={folder}: no such folder: give the one with the files")


@dataclasses.dataclass(frozen=True)
class MediaFiles:
    """Files by name below `folder`, or by member name in the tars and zips directly in it."""

    folder: str

    def read(self, *names: str) -> bytes:
        """The first of the named files that is there; BadRecord `not_downloaded` for none.

        Further reasons: `unsafe_path`, `too_large`, and those of a tar's member.
        """
        for name in names:
            for extension in _EXTENSIONS:
                data = self._read(name + extension)
                if data is not None:
                    return data
        raise BadRecord(
            "not_downloaded", f"{names[0] if names else 'a medium'} is not in the media folder"
        )

    def _read(self, name: str) -> bytes | None:
        parts = pathlib.PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\0" in name:
            raise BadRecord("unsafe_path", f"the name {name!r} leaves the media folder")
        path = epath.Path(self.folder, *parts)
        try:
            if path.is_file():
                if path.stat().length > MAX_MEMBER_BYTES:
                    raise BadRecord("too_large", f"{path} has more than {MAX_MEMBER_BYTES} bytes")
                return path.read_bytes()
        except OSError as error:  # such as a name that is too long for a file
            raise BadRecord("unreadable", f"{name}: {error}") from error
        found = _archives(self.folder).get(name)
        if found is None:
            return None
        if isinstance(found, Member):
            return found.read()
        return _read_zipped(*found)


def _read_zipped(path: str, name: str) -> bytes:
    try:
        with _zip(path, os.getpid()).open(name) as file:
            data = file.read(MAX_MEMBER_BYTES + 1)
    except ARCHIVE_ERRORS as error:
        raise BadRecord("damaged_zip", f"{path}: {name}: {error}") from error
    if len(data) > MAX_MEMBER_BYTES:
        raise BadRecord("too_large", f"{path}: {name} has more than {MAX_MEMBER_BYTES} bytes")
    return data


@functools.lru_cache(maxsize=8)
def _zip(path: str, process: int) -> zipfile.ZipFile:
    """Kept open, for its list of members (0.4 s for 40,000) would be read for every picture.

    One for each process: a fork would share the place in the file.
    """
    del process
    return zipfile.ZipFile(epath.Path(path).open("rb"))


@functools.lru_cache(maxsize=8)
def _archives(folder: str) -> dict[str, Member | tuple[str, str]]:
    """Where each member of the folder's archives lies, found once a process."""
    where: dict[str, Member | tuple[str, str]] = {}
    for path in sorted(epath.Path(folder).glob("*.tar")):
        for member in members(str(path)):
            if isinstance(member, Member):
                where.setdefault(member.name, member)
    for path in sorted(epath.Path(folder).glob("*.zip")):
        try:
            names = _zip(str(path), os.getpid()).namelist()
        except ARCHIVE_ERRORS:
            continue
        for name in names:
            where.setdefault(name, (str(path), name))
    return where
