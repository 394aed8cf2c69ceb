"""predictions/TASK_SHOTS.jsonl: one line for each query and seed, written as they are made.

A killed command leaves whole lines and at most one torn at the end, which is dropped when the same
command goes on. Of several processes all have the lines, and process 0 alone the file.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.whole_files import naming_when_full, write_whole
from experiments.cli import UserError
from experiments.training import processes

Key = tuple[int, str]  # seed, query's id
Line = dict[str, Any]


class PredictionFile:
    """Lines by seed and query."""

    def __init__(self, path: pathlib.Path):
        self._path, self._writes = path, processes.is_first()
        own = _read(path) if self._writes else []
        lines = processes.gather(own)[0]
        self.lines: dict[Key, Line] = {(line["seed"], line["id"]): line for line in lines}

    def add(self, lines: Sequence[Line]) -> None:
        """Writes lines behind those that are there."""
        self.lines |= {(line["seed"], line["id"]): line for line in lines}
        if not self._writes:
            return
        with naming_when_full(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(_text(lines))

    def finish(self, scores: Mapping[Key, float], name: str) -> None:
        """Writes all lines anew, those of `scores` alone with a score, under `name`."""
        for key, line in self.lines.items():
            line.pop(name, None)
            if key in scores:
                line[name] = scores[key]
        if self._writes:
            write_whole(self._path, _text(list(self.lines.values())).encode())


def _read(path: pathlib.Path) -> list[Line]:
    """The lines that are there, a torn one dropped; UserError for one that is no prediction."""
    data = path.read_bytes() if path.is_file() else b""
    whole, _, torn = data.rpartition(b"\n")
    lines = []
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            line = json.loads(text)
            hash(tuple(line[field] for field in ("seed", "id", "text")))
            lines.append(line)
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}:{number} is damaged: delete the file") from None
    if torn:
        write_whole(path, whole + b"\n" if whole else b"")
    return lines


def _text(lines: Sequence[Line]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
