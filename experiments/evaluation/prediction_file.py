"""predictions/TASK_SHOTS.jsonl: one line for each query and seed, written as they are made.

A killed command leaves whole lines and at most one torn at the end, which is dropped when the same
command goes on.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.whole_files import write_whole
from experiments.cli import UserError

Key = tuple[int, str]  # seed, query's id
Line = dict[str, Any]


class PredictionFile:
    """Lines by seed and query."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self.lines: dict[Key, Line] = {}
        data = path.read_bytes() if path.is_file() else b""
        whole, _, torn = data.rpartition(b"\n")
        for number, text in enumerate(whole.splitlines(), 1):
            try:
                line = json.loads(text)
                seed, name, _ = (line[field] for field in ("seed", "id", "text"))
                self.lines[seed, name] = line
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{path}:{number} is damaged: delete the file") from None
        if torn:
            write_whole(path, whole + b"\n" if whole else b"")

    def add(self, lines: Sequence[Line]) -> None:
        """Writes lines behind those that are there."""
        self.lines |= {(line["seed"], line["id"]): line for line in lines}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_text(lines))

    def finish(self, scores: Mapping[Key, float], name: str) -> None:
        """Writes all lines anew, those of `scores` alone with a score, under `name`."""
        for key, line in self.lines.items():
            line.pop(name, None)
            if key in scores:
                line[name] = scores[key]
        write_whole(self._path, _text(list(self.lines.values())).encode())


def _text(lines: Sequence[Line]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
