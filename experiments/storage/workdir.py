"""The folder that a command writes: on disk, or in a bucket, `--workdir=gs://BUCKET/runs/mine`.

Into a bucket a run's checkpoints are written by orbax itself, by all processes. The rest process 0
writes to a local folder, below the cache folder, which is copied up (`mirror.Mirror`) when a run
begins, in the background after each checkpoint, and at its end. So a run goes on from the bucket
alone, on any machine; and so does an evaluation.
"""

import contextlib
import hashlib
import os
import pathlib
import sys
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from etils import epath

from data_pipelines import folder_lock
from experiments import cli
from experiments.published.conversion import mebibytes
from experiments.storage import bucket
from experiments.storage.mirror import Mirror
from experiments.training import processes
from flamingo_jax.cache import cache_dir

_CHECKPOINTS = "checkpoints"


class Workdir:
    """Around a whole command: `folder` is where this process writes, `place` what the user gave.

    What the last copy could not bring into the bucket is an error, unless the block ends with one.
    """

    def __init__(self, place: str, folder: pathlib.Path, *, mirrored: bool):
        self.place, self.folder = place, folder
        self._mirrored, self._mirror = mirrored, None
        self._background = ThreadPoolExecutor(1, "workdir")
        self._copying: Future | None = None
        self._failures, self._begun = 0, False
        self._lock: int | None = None

    @classmethod
    def given(cls, name: str, value: str) -> Self:
        """That which option `name` was given; UserError for no folder. Asks no network."""
        if not bucket.is_address(value):
            folder = cli.local_path(name, value)
            return cls(str(folder), folder, mirrored=False)
        address = bucket.check(name, value)
        digest = hashlib.sha256(address.encode()).hexdigest()[:12]
        folder = cache_dir() / "workdirs" / f"{os.path.basename(address)[:100]}-{digest}"
        return cls(address, folder, mirrored=True)

    @property
    def shared(self) -> epath.Path:
        """The place itself, the same one for all processes."""
        return epath.Path(self.place)

    @property
    def checkpoints(self) -> epath.Path:
        """Their folder, in that place."""
        return self.shared / _CHECKPOINTS

    def __str__(self) -> str:
        return self.place

    def bring(self, names: Iterable[str] | None = None) -> None:
        """Those files, or all, of what goes on in a bucket; all processes call it.

        UserError for a bucket that cannot be read.
        """
        if self._mirrored and processes.is_first():
            with bucket.reached(self.place):
                self._mirror = Mirror(self.place, self.folder)
                self._mirror.bring(names)
        processes.gather(None)  # they are there, for all processes of this machine

    def hold(self) -> None:
        """Makes the folder, and keeps other runs on this machine out of it until the block ends.

        All processes call it. UserError where one is in it. Of a disk that knows no such locks
        nobody is kept out.
        """
        taken = False
        self.folder.mkdir(parents=True, exist_ok=True)
        if processes.is_first():
            try:
                self._lock = folder_lock.take(self.folder)
            except BlockingIOError:
                taken = True
        if processes.gather(taken)[0]:
            raise cli.UserError(
                f"another process trains in {self}: stop it or wait for its end, or give another "
                "workdir"
            )

    def begin(self) -> None:
        """Copies up what there is; UserError for a bucket that cannot be written."""
        if self._mirror:
            with bucket.reached(self.place):
                self._mirror.copy(tries=1)
        self._begun = True

    def share(self, name: str) -> None:
        """Begins, with `name` there, and fails unless every process sees it; all call it."""
        self.begin()
        with bucket.reached(self.place) if self._mirrored else contextlib.nullcontext():
            processes.check_shared(self.shared / name)

    def keep(self) -> Future | None:
        """Has what changed copied up in the background, at once or behind a copy under way.

        That copy; None where there is nothing to copy to.
        """
        waiting = self._copying and not (self._copying.running() or self._copying.done())
        if self._mirror and not waiting:
            self._copying = self._background.submit(self._copy)
        return self._copying

    def _copy(self) -> None:
        """A copy that fails is said, and left to the next one."""
        try:
            self._mirror.copy()
        except Exception as error:
            self._failures += 1
            print(
                f"warning: {self.place} has not all of {self.folder}, by copy failed "
                f"{self._failures}: {bucket.reason(error)}; the next copy brings it",
                file=sys.stderr,
                flush=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        self._background.shutdown()
        try:
            self._finish(kind)
        finally:
            if self._lock is not None:
                os.close(self._lock)

    def _finish(self, kind: type[BaseException] | None) -> None:
        """The last copy."""
        if not self._mirror or not self._begun or kind is KeyboardInterrupt:
            return
        if kind is not None:
            self._copy()
            return
        total = sum(size for size, _ in self._mirror.changed().values())
        try:
            with mebibytes(total, f"copying to {self.place}") as tick:
                self._mirror.copy(tick=tick)
        except Exception as error:
            left = self._mirror.changed()
            raise cli.UserError(
                f"{self.place}: {bucket.reason(error)}. {len(left)} files ({min(left)}, ...) are "
                f"whole in {self.folder} alone: the same command on this machine copies them, or "
                f"gcloud storage rsync -r {self.folder} {self.place}"
            ) from error
