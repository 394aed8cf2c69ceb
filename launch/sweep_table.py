"""What came out of a sweep: `sweep.json` for programs, `sweep.md` for people, best point first."""

import dataclasses
import json
import shlex
from collections.abc import Sequence
from typing import Any

from launch.places import Place
from launch.sweep_folder import Folder, Outcome

_BESIDE = ("_low", "_high")  # of intervals, whose middles are enough for a table
_LOSS, _HELDOUT = "loss", "heldout"


@dataclasses.dataclass(frozen=True)
class Row:
    """A point, and how it stands."""

    folder: Folder
    status: str
    outcome: Outcome | None  # of a finished one

    def value(self, metric: str) -> float | None:
        """A number of a finished point."""
        return self.outcome and self.outcome.value(metric)

    @property
    def report(self) -> dict[str, Any]:
        return self.outcome.report if self.outcome else {}


def write(
    workdir: Place, rows: Sequence[Row], command: Sequence[str], metric: str, largest: bool
) -> None:
    """Both files, with the points in the order of the metric; those without it come last."""
    with_it = [row for row in rows if row.value(metric) is not None]
    ordered = sorted(with_it, key=lambda row: row.value(metric), reverse=largest)
    ordered += [row for row in rows if row.value(metric) is None]
    values = {
        "command": list(command),
        "metric": metric,
        "largest_first": largest,
        "points": [_json(row, metric) for row in ordered],
    }
    workdir.write("sweep.json", json.dumps(values, indent=2) + "\n")
    workdir.write("sweep.md", _markdown(ordered, command, metric, largest))


def _json(row: Row, metric: str) -> dict[str, Any]:
    return {
        "name": row.folder.point.name,
        "overrides": dict(row.folder.point.overrides),
        "workdir": str(row.folder.place),
        "status": row.status,
        metric: row.value(metric),
        _LOSS: row.value(_LOSS),
        _HELDOUT: row.report.get(_HELDOUT),
        "wall_s": row.report.get("wall_s"),
    }


def _markdown(rows: Sequence[Row], command: Sequence[str], metric: str, largest: bool) -> str:
    keys = _in_order(key for row in rows for key in row.folder.point.overrides)
    metrics = _in_order([_LOSS, *_heldout(rows), metric])
    head = [*(f"`{key}`" for key in keys), *metrics, "wall time", "status"]
    lines = [_line(head), _line("---" for _ in head)]
    for row in rows:
        overrides = row.folder.point.overrides
        wall_s = row.value("wall_s")
        lines.append(
            _line(
                [
                    *(overrides.get(key, "") for key in keys),
                    *(_number(row.value(each)) for each in metrics),
                    "" if wall_s is None else f"{wall_s:.0f} s",
                    row.status,
                ]
            )
        )
    first = "largest" if largest else "smallest"
    title = f"# Sweep\n\n    {shlex.join(command)}\n\nBy `{metric}`, {first} first.\n\n"
    failed = [row.folder for row in rows if row.status.startswith("failed")]
    lines += ["", *(f"- {one.point.name}: `{one.last_line()}`" for one in failed)] * bool(failed)
    return title + "\n".join(lines) + "\n"


def _heldout(rows: Sequence[Row]) -> list[str]:
    """The held-out numbers that any point has, by their paths in the report."""
    found = []
    for row in rows:
        heldout = row.report.get(_HELDOUT)
        found += [
            f"{_HELDOUT}.{name}"
            for name in heldout or {}
            if not name.endswith(_BESIDE) and name != "num_queries"
        ]
    return found


def _in_order(names: Any) -> list[str]:
    """Each once, as they first come."""
    return list(dict.fromkeys(names))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _line(cells: Any) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
