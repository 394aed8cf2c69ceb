"""results.json and results.md: every score with how it was made.

A command adds to the rows of an earlier one in the same folder, or replaces them.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.whole_files import read_json, write_json, write_whole
from experiments.cli import UserError
from flamingo_jax.eval.published import FINE_TUNED, MODELS, published

Json = dict[str, Any]
JSON, MARKDOWN = "results.json", "results.md"
_IDENTITY = "card_sha256", "weights_sha256"  # of a model, wherever it lies


@dataclasses.dataclass(frozen=True)
class Result:
    """One row, as it is written; `note` says why there is no score."""

    task: str
    shots: int
    is_own: bool
    metric: str
    scorer: str
    split: str
    prompt_template: str
    example_prompt: str
    decoding: str
    zero_shot_texts: int | None  # asked for, of open-ended tasks; None where there are shots
    retrieval: str
    permutations: int
    seeds: tuple[int, ...]
    num_queries: int
    num_support: int
    skipped_queries: Mapping[str, int]
    skipped_support: Mapping[str, int]
    note: str = ""
    score: float | None = None
    low: float | None = None
    high: float | None = None
    interval: str = ""
    score_of_seeds: tuple[float, ...] = ()
    groups: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def to_json(self) -> Json:
        """With the spread over seeds and the paper's scores of this task and number of shots."""
        values = dataclasses.asdict(self)
        if len(self.score_of_seeds) > 1:
            values["std_over_seeds"] = float(np.std(self.score_of_seeds, ddof=1))
        tuned = self.zero_shot_texts == 0
        points = [] if self.is_own else published(self.task, fine_tuned=tuned)
        values["published"] = {p.model: p.score for p in points if p.shots == self.shots}
        return json.loads(json.dumps(values))  # as it is read again


def write(folder: pathlib.Path, about: Json, results: Sequence[Result]) -> list[Json]:
    """Writes both files; the rows, those of earlier commands too."""
    path = folder / JSON
    rows = {(row["task"], row["shots"]): row for row in _earlier(path, about)}
    rows |= {(result.task, result.shots): result.to_json() for result in results}
    ordered = [rows[key] for key in sorted(rows)]
    write_json(
        path,
        {**about, "unit": "as papers print it: 100 is best, but of CIDEr"} | {"results": ordered},
    )
    write_whole(folder / MARKDOWN, _markdown(about, ordered).encode())
    return ordered


def _earlier(path: pathlib.Path, about: Json) -> list[Json]:
    """Rows of this model that are there; UserError for any that tables and figure cannot show."""
    try:
        before = read_json(path) if path.is_file() else about | {"results": []}
        same = all(before["model"][key] == about["model"][key] for key in _IDENTITY)
        kept = list(before["results"]) if same else []
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: delete it") from error
    try:
        _markdown(about, kept)
        _ = [f"{row['shots']:d} {row['retrieval']}" for row in kept]  # which the figure reads
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        wrong = f"has no {error}" if isinstance(error, KeyError) else f"cannot be shown ({error})"
        raise UserError(
            f"{path}: a row {wrong}: delete the file and give the same command again, which scores "
            "the predictions that are there"
        ) from error
    return kept


def num_queries(rows: Sequence[Json]) -> str:
    """Of one task's rows, which commands with another --num_queries may have made."""
    numbers = sorted({row["num_queries"] for row in rows})
    return " to ".join(f"{number:,}" for number in dict.fromkeys((numbers[0], numbers[-1])))


def _markdown(about: Json, rows: Sequence[Json]) -> str:
    shots = sorted({row["shots"] for row in rows})
    lines = [
        "# Scores",
        "",
        f"Model `{about['model']['directory']}`, examples: {about['settings']['retrieval']}. "
        "Scores as papers print them, with 95% intervals over queries; [how they are made]"
        "(#how) is below and, in full, in `results.json`.",
        "",
        f"| task | metric | queries | {' | '.join(f'{n} shots' for n in shots)} |",
        f"|---|---|---|{'---|' * len(shots)}",
    ]
    tasks = sorted({row["task"] for row in rows})
    for task in tasks:
        own = {row["shots"]: row for row in rows if row["task"] == task}
        metric = next(iter(own.values()))["metric"]
        cells = [_cell(own.get(n)) for n in shots]
        queries = num_queries(list(own.values()))
        lines.append(f"| {_escaped(task)} | {metric} | {queries} | {' | '.join(cells)} |")
        for model in (*MODELS, FINE_TUNED):
            points = {n: row["published"].get(model) for n, row in own.items()}
            if any(score is not None for score in points.values()):
                cells = ["" if points.get(n) is None else f"{points[n]:.1f}" for n in shots]
                lines.append(f"| {task}, {model} (paper) | | | {' | '.join(cells)} |")
    lines += [
        "",
        "## How",
        "",
        "| task | split | prompt | decoding | left out |",
        "|---|---|---|---|---|",
    ]
    for task in tasks:
        row = next(row for row in rows if row["task"] == task)
        left_out = [
            f"{what}: {', '.join(f'{n} {reason}' for reason, n in row[f'skipped_{what}'].items())}"
            for what in ("queries", "support")
            if row[f"skipped_{what}"]
        ]
        cells = [
            _escaped(task),
            row["split"],
            f"`{_escaped(row['prompt_template'])}`",
            row["decoding"],
            "; ".join(left_out) or "none",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"- {row['task']}, {row['shots']} shots: {row['note']}" for row in rows if row["note"]]
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def _escaped(text: str) -> str:
    """For a cell of a table."""
    return text.replace("|", "\\|")


def _cell(row: Json | None) -> str:
    if row is None:
        return ""
    if row["score"] is None:
        return "OOC" if row["note"].startswith("out of context") else "-"
    spread = f", ± {row['std_over_seeds']:.1f} over seeds" if "std_over_seeds" in row else ""
    return f"{row['score']:.1f} ({row['low']:.1f} to {row['high']:.1f}{spread})"
