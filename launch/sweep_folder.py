"""What is known of a point from its folder: whether it is finished, and what came out.

A point is finished when it has the report of the command that is asked for now. With another
command (more steps, say) the same folder is run again, and `experiments.train` goes on from its
checkpoint.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from launch.places import Place
from launch.sweep_points import Point

OUTPUT = "output.log"
_RECORD = "sweep_point.json"  # written whenever the point is started
_REPORT, _METRICS = "report.json", "metrics.jsonl"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a finished point left."""

    report: dict[str, Any]
    last_loss: float | None  # of the newest whole row of the metrics

    def value(self, metric: str) -> float | None:
        """A number of the report by its path, as heldout.nll_right; `loss` is the last one."""
        if metric == "loss":
            return self.last_loss
        at: Any = self.report
        for name in metric.split("."):
            at = at.get(name) if isinstance(at, dict) else None
        is_number = isinstance(at, int | float) and not isinstance(at, bool)
        return float(at) if is_number and math.isfinite(at) else None


@dataclasses.dataclass(frozen=True)
class Folder:
    """The workdir of one point; OSError where it lies in a bucket that cannot be reached."""

    place: Place
    here: pathlib.Path  # of this machine, where its output goes; of a workdir on disk the same one
    point: Point
    command: Sequence[str]  # without workdir and launcher

    @property
    def output(self) -> pathlib.Path:
        """What the point says."""
        return self.here / OUTPUT

    def begin(self, *, handed_over: bool = False) -> None:
        """Writes what is started here; a report that is older is of another command."""
        record = {
            "overrides": dict(self.point.overrides),
            "command": list(self.command),
            "handed_over": handed_over,
        }
        self.place.write(_RECORD, json.dumps(record, indent=2) + "\n")

    def is_finished(self) -> bool:
        """Whether there is a report, and no newer start or other command of this sweep."""
        if self._read(_REPORT) is None:
            return False
        began_s = self.place.changed_s(_RECORD)
        if began_s is None:
            return True  # run by hand
        ended_s = self.place.changed_s(_REPORT)
        return ended_s is not None and ended_s >= began_s and self._is_mine()

    def is_handed_over(self) -> bool:
        """Whether a launcher took this very command and was done with it."""
        record = self._read(_RECORD) or {}
        return bool(record.get("handed_over")) and self._is_mine()

    def outcome(self) -> Outcome:
        """Of a finished point."""
        return Outcome(self._read(_REPORT) or {}, _last_loss(self.place.read(_METRICS) or ""))

    def last_line(self) -> str:
        """What the point said last."""
        try:
            text = self.output.read_text(errors="replace")
        except OSError:
            return ""
        return next((line for line in reversed(text.splitlines()) if line.strip()), "").strip()

    def _is_mine(self) -> bool:
        record = self._read(_RECORD) or {}
        return record.get("command") == list(self.command)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found = json.loads(self.place.read(name) or "")
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


def _last_loss(metrics: str) -> float | None:
    for line in reversed(metrics.splitlines()):
        try:
            return float(json.loads(line)["loss"])
        except (ValueError, KeyError, TypeError):
            continue  # was cut off, or is of something else
    return None
