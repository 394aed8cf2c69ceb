"""points/TASK-DIGEST/: where a benchmark's pictures and videos lie in the towers' space.

They are what its scores cost, so they are kept as they are made, some hundreds a file: a command
that was stopped goes on, also with more queries or other descriptions. The digest is of all that a
point depends on, so another model or a changed benchmark finds none.
"""

import hashlib
import io
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from data_pipelines.whole_files import write_whole
from experiments.cli import UserError

_A_FILE = 256  # pictures or videos


class KeptPoints:
    """Points by the example's id; of `made_with` the digest is."""

    def __init__(
        self,
        folder: pathlib.Path,
        task: str,
        made_with: Sequence[str],
        written: Callable[[], object] = lambda: None,  # called after each file
    ):
        digest = hashlib.sha256("\n".join(made_with).encode()).hexdigest()[:12]
        self._folder, self._written = folder / f"{task}-{digest}", written
        self._files = sorted(self._folder.glob("*.npz"))
        self._new: dict[str, np.ndarray] = {}
        self.points: dict[str, np.ndarray] = {}  # f32[J]
        for path in self._files:
            self.points |= _read(path)

    def add(self, points: Mapping[str, np.ndarray]) -> None:
        """Writes them when there are enough for a file."""
        self.points |= points
        self._new |= points
        if len(self._new) >= _A_FILE:
            self.write()

    def write(self) -> None:
        """Writes what is not written yet."""
        if not self._new:
            return
        data, path = io.BytesIO(), self._folder / f"{len(self._files):06d}.npz"
        np.savez(data, ids=list(self._new), points=np.stack(list(self._new.values())))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data.getvalue())
        self._files.append(path)
        self._new = {}
        self._written()


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as found:
            return dict(zip(found["ids"].tolist(), found["points"], strict=True))
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged: delete it") from error
