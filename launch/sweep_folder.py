"""What is known of a point from its folder: whether it is finished, and what came out.

A point is finished when it has the report of the command that is asked for now. With another
command (more steps, say) the same folder is run again, and `experiments.train` goes on from its
checkpoint.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from launch.sweep_points import Point

OUTPUT = "output.log"
_RECORD = "sweep_point.json"  # written whenever the point is started
_REPORT, _METRICS = "report.json", "metrics.jsonl"


@dataclasses.dataclass(frozen=True)
class Folder:
    """The workdir of one point."""

    path: pathlib.Path
    point: Point
    command: Sequence[str]  # without workdir and launcher

    def begin(self, *, handed_over: bool = False) -> None:
        """Writes what is started here; a report that is older is of another command."""
        self.path.mkdir(parents=True, exist_ok=True)
        record = {
            "overrides": dict(self.point.overrides),
            "command": list(self.command),
            "handed_over": handed_over,
        }
        write_whole(self.path / _RECORD, json.dumps(record, indent=2) + "\n")

    def is_finished(self) -> bool:
        """Whether there is a report, and no newer start or other command of this sweep."""
        report, record = self.path / _REPORT, self.path / _RECORD
        if self.report() is None:
            return False
        if not record.is_file():
            return True  # run by hand
        newer = report.stat().st_mtime_ns >= record.stat().st_mtime_ns
        return newer and self._is_mine()

    def is_handed_over(self) -> bool:
        """Whether a launcher took this very command and was done with it."""
        record = _read(self.path / _RECORD) or {}
        return bool(record.get("handed_over")) and self._is_mine()

    def report(self) -> dict[str, Any] | None:
        return _read(self.path / _REPORT)

    def last_loss(self) -> float | None:
        """The loss of the newest whole row of the metrics."""
        try:
            lines = (self.path / _METRICS).read_text().splitlines()
        except OSError:
            return None
        for line in reversed(lines):
            try:
                return float(json.loads(line)["loss"])
            except (ValueError, KeyError, TypeError):
                continue  # was cut off, or is of something else
        return None

    def value(self, metric: str) -> float | None:
        """A number of the report by its path, as heldout.nll_right; `loss` is the last one."""
        if metric == "loss":
            return self.last_loss()
        at: Any = self.report()
        for name in metric.split("."):
            at = at.get(name) if isinstance(at, dict) else None
        is_number = isinstance(at, int | float) and not isinstance(at, bool)
        return float(at) if is_number and math.isfinite(at) else None

    def last_line(self) -> str:
        """What the point said last."""
        try:
            text = (self.path / OUTPUT).read_text(errors="replace")
        except OSError:
            return ""
        return next((line for line in reversed(text.splitlines()) if line.strip()), "").strip()

    def _is_mine(self) -> bool:
        record = _read(self.path / _RECORD) or {}
        return record.get("command") == list(self.command)


def write_whole(path: pathlib.Path, text: str) -> None:
    """The file is there with all its text, or as it was."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
