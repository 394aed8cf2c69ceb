"""A folder on disk or in a bucket, `gs://BUCKET/FOLDER`: texts that are read and written there.

Buckets are reached with gcsfs, as `experiments` reach them; nothing of a listing is remembered,
since runs elsewhere write there too.
"""

import contextlib
import dataclasses
import importlib.util
import logging
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

_ADDRESS = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]/.*[^/]/*")


@dataclasses.dataclass(frozen=True)
class Place:
    """The folder that `given` names; OSError, in one line, where a bucket cannot be reached."""

    given: str

    def __str__(self) -> str:
        return self.given

    def __truediv__(self, name: str) -> "Place":
        return Place(f"{self.given.rstrip('/')}/{name}")

    @property
    def in_bucket(self) -> bool:
        return "://" in self.given

    def check(self) -> None:
        """ValueError where it can be no folder; asks no network."""
        if not self.in_bucket:
            if not self.given or (os.path.exists(self.given) and not os.path.isdir(self.given)):
                raise ValueError(f"{self.given!r} is no folder")
        elif not _ADDRESS.fullmatch(self.given):
            raise ValueError(f"{self.given!r}: give gs://BUCKET/FOLDER, or a path of this machine")
        elif not importlib.util.find_spec("gcsfs"):
            raise ValueError(
                f"{self.given!r}: gcsfs is not installed: in the repository, "
                "pip install -e '.[gcs]'"
            )

    def read(self, name: str) -> str | None:
        """A file's text; None where there is none."""
        with contextlib.suppress(FileNotFoundError), self._reached():
            if self.in_bucket:
                store, path = self._connect()
                return store.cat_file(f"{path}/{name}").decode(errors="replace")
            return (pathlib.Path(self.given) / name).read_text(errors="replace")
        return None

    def changed_s(self, name: str) -> float | None:
        """When a file was written, in seconds of the place's clock; None where there is none."""
        with contextlib.suppress(FileNotFoundError), self._reached():
            if self.in_bucket:
                store, path = self._connect()
                return store.modified(f"{path}/{name}").timestamp()
            return (pathlib.Path(self.given) / name).stat().st_mtime_ns / 1e9
        return None

    def write(self, name: str, text: str) -> None:
        """The file is there with all its text, or as it was."""
        if self.in_bucket:
            try:
                with self._reached():
                    store, path = self._connect()
                    store.pipe_file(f"{path}/{name}", text.encode())
            except FileNotFoundError as error:
                raise OSError(f"{self.given}: there is no such bucket: make it first") from error
            return
        folder = pathlib.Path(self.given)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{name}.part"
        part.write_text(text)
        part.replace(folder / name)

    def _connect(self) -> tuple[Any, str]:
        import fsspec  # not above: it comes with the extra

        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # prints what it raises, too
        return fsspec.core.url_to_fs(self.given, use_listings_cache=False)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # of a disk, or gcsfs's, aiohttp's, google-auth's
            text = " ".join(str(error).split()) or type(error).__name__
            raise OSError(f"{self.given}: {text[:300]}") from error
