"""A local folder and one of a bucket that is kept as it: files copied up where they changed.

What is written there is written by ordinary code, to the local folder. Beside its files lies a
record of what the bucket has of them, so that only what changed since is copied, and a later
process, here or on another machine, knows which of the two is the newer one.
"""

import contextlib
import json
import pathlib
import shutil
import time
from collections.abc import Iterable
from typing import Any

from data_pipelines.whole_files import write_json
from experiments.storage import bucket
from experiments.storage.bucket import Tick

_RECORD = ".mirror.json"
_MODEL = "model"  # the folder whose files belong together
_UNFINISHED = (".partial", ".replaced")  # what is being written, or was
_PAUSES_S = (2.0, 10.0)  # between tries; gcsfs itself tries for a minute
TRIES = 1 + len(_PAUSES_S)
_VERSION = ("generation", "ETag", "etag", "created")  # whichever a store has for a file's content


def version(info: dict[str, Any]) -> str:
    """What changes when a file of a store does."""
    return f"{info['size']} {next(str(info[key]) for key in _VERSION if key in info)}"


class _Renamed(Exception):
    """A file that is not there any more."""


class Mirror:
    """`folder`, and `address`, its copy."""

    def __init__(self, address: str, folder: pathlib.Path):
        self.address, self.folder = address, folder
        self._store, self._path = bucket.connect(address)
        self._record = {}  # by name: size and time here, and the version there, as of the last copy

    def bring(self, names: Iterable[str] | None = None) -> None:
        """Copies down what another machine has written since, of `names` or all; once, at first.

        Where the bucket has none of them, what lies here is of a run that was deleted there, and is
        deleted too.
        """
        found = self._versions(names)
        if not found:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError, ValueError):  # of a torn one
            self._record = json.loads((self.folder / _RECORD).read_text())
        for name in {*found, *self._record} if names is None else names:
            here = self.folder / name
            there = found.get(name)
            if there is None:
                here.unlink(missing_ok=True)
                self._record.pop(name, None)
            elif not here.is_file() or self._record.get(name, [None])[-1] != there:
                partial = here.with_name(f".{here.name}.partial")
                partial.parent.mkdir(parents=True, exist_ok=True)
                self._store.get_file(self._remote(name), str(partial))
                partial.replace(here)
                self._record[name] = [*_stamp(here), there]
        if self._record:  # else the folder stays empty
            self._save_record()

    def _versions(self, names: Iterable[str] | None) -> dict[str, str]:
        """Of those that the bucket has."""
        if names is None:
            there = self._store.find(self._path, detail=True)
            base = self._remote("")
            return {path.removeprefix(base): version(info) for path, info in there.items()}
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = version(self._store.info(self._remote(name)))
        return found

    def changed(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file that the bucket has not as it is here, by name.

        Of a model whose files are not all there, all.
        """
        stamps = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            if path.name == _RECORD or any(p.endswith(_UNFINISHED) for p in name.parts):
                continue
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                if path.is_file():
                    stamps[name.as_posix()] = _stamp(path)
        other = {n: s for n, s in stamps.items() if self._record.get(n, [])[:2] != list(s)}
        if any(_is_of_model(name) for name in other):
            other |= {name: stamp for name, stamp in stamps.items() if _is_of_model(name)}
        return other

    def copy(self, tries: int = TRIES, tick: Tick = lambda num_bytes: None) -> None:
        """Copies up what changed; what was copied before an error stays copied.

        `tick` is called with the number of bytes that were copied just now. Raises what the store's
        client raises at the last of `tries`. A model's description goes last, and its old one
        first, so that what has one is whole.
        """
        changed = self.changed()
        if any(_is_of_model(name) for name in changed):
            self._delete_model()
        order = sorted(changed, key=lambda name: (_is_of_model(name), _describes(name)))
        try:
            for name in order:
                size, when = changed[name]
                with contextlib.suppress(_Renamed):
                    self._record[name] = [size, when, self._put(name, tries, tick)]
        finally:
            self._save_record()

    def _put(self, name: str, tries: int, tick: Tick) -> str:
        """Copies one file; its version there."""
        here, there = self.folder / name, self._remote(name)
        counted = bucket.counted(tick)
        for pause_s in (*_PAUSES_S[: tries - 1], None):
            try:
                self._store.put_file(str(here), there, callback=counted)
                return version(self._store.info(there))
            except Exception as error:  # whatever clients raise
                if not here.exists():
                    raise _Renamed from error
                if pause_s is None:
                    raise
                time.sleep(pause_s)
        raise AssertionError

    def _delete_model(self) -> None:
        """What the bucket has of another model, its descriptions first."""
        there = self._store.find(self._remote(_MODEL))
        base = self._remote("")
        for path in sorted(there, key=lambda path: not _describes(path.removeprefix(base))):
            self._store.rm_file(path)
        self._record = {n: known for n, known in self._record.items() if not _is_of_model(n)}

    def _remote(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _save_record(self) -> None:
        write_json(self.folder / _RECORD, self._record)


def _stamp(path: pathlib.Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _is_of_model(name: str) -> bool:
    return name.startswith(f"{_MODEL}/")


def _describes(name: str) -> bool:
    """Whether it is a file by which a model is found."""
    return _is_of_model(name) and name.endswith(".json") and name.count("/") == 1
