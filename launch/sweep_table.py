"""What came out of a sweep: `sweep.json` for programs, `sweep.md` for people, best point first."""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

from launch.sweep_folder import Folder, write_whole

FINISHED = "finished"
_BESIDE = ("_low", "_high")  # of intervals, whose middles are enough for a table
_LOSS, _HELDOUT = "loss", "heldout"


@dataclasses.dataclass(frozen=True)
class Row:
    """A point, and how it stands."""

    folder: Folder
    status: str

    def value(self, metric: str) -> float | None:
        """A number of a finished point."""
        return self.folder.value(metric) if self.status == FINISHED else None


def write(
    workdir: pathlib.Path, rows: Sequence[Row], command: Sequence[str], metric: str, largest: bool
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
    write_whole(workdir / "sweep.json", json.dumps(values, indent=2) + "\n")
    write_whole(workdir / "sweep.md", _markdown(ordered, command, metric, largest))


def _json(row: Row, metric: str) -> dict[str, Any]:
    report = (row.folder.report() if row.status == FINISHED else None) or {}
    return {
        "name": row.folder.point.name,
        "overrides": dict(row.folder.point.overrides),
        "workdir": str(row.folder.path),
        "status": row.status,
        metric: row.value(metric),
        _LOSS: row.value(_LOSS),
        _HELDOUT: report.get(_HELDOUT),
        "wall_s": report.get("wall_s"),
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
    return title + "\n".join(lines) + "\n"


def _heldout(rows: Sequence[Row]) -> list[str]:
    """The held-out numbers that any point has, by their paths in the report."""
    found = []
    for row in rows:
        heldout = (row.folder.report() or {}).get(_HELDOUT) if row.status == FINISHED else None
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
