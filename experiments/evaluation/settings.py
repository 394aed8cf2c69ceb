"""What a command asks for beside model and tasks, and what must stay the same in one --out.

Predictions that are there already are reused, so they must have been made in the same way. More
tasks, shots, seeds and queries may be asked for, since what is drawn for a query depends on neither
the other queries nor their number. Orders of examples count where there are any: of close-ended
tasks with examples; texts without pictures where there are any: of open-ended ones at zero shots.
"""

import dataclasses
import glob
import hashlib
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from data_pipelines.whole_files import read_json, write_json
from experiments.cli import UserError
from flamingo_jax import model_directory
from flamingo_jax.eval.few_shot import NUM_ZERO_SHOT_TEXTS
from flamingo_jax.eval.metrics import METRICS
from flamingo_jax.eval.task import Task

_FORMAT = 1
_FILE = "settings.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of a whole command."""

    retrieval: Literal["random", "rices"] = "random"
    permutations: int = 1
    seeds: int = 1
    num_queries: int | None = None  # of each task; None: all
    max_skipped_share: float = 0.1
    zero_shot_texts: int = NUM_ZERO_SHOT_TEXTS  # of open-ended tasks

    def __post_init__(self):
        if not 0 <= self.max_skipped_share <= 1:  # NaN too
            raise ValueError(
                f"max_skipped_share={self.max_skipped_share}: use a share of the pictures, 0 to 1"
            )


def model_identity(directory: pathlib.Path) -> dict[str, str]:
    """SHA-256 of a model's card and of its trained weights."""
    directory = model_directory.find(directory)
    return {
        "card_sha256": _sha256(directory / "model.json"),
        "weights_sha256": _sha256(directory / "weights.safetensors"),
    }


def check(
    folder: pathlib.Path,
    model: dict[str, str],
    settings: Settings,
    task: Task,
    shots: Sequence[int],
    more: Mapping[str, str] = types.MappingProxyType({}),
) -> None:
    """Writes down how a task's predictions are made; UserError where some were made otherwise."""
    path = folder / _FILE
    here = {"format": _FORMAT, **model, "retrieval": settings.retrieval}
    own = {
        "template": task.template.text,
        "metric": task.metric,
        "max_tokens": task.max_tokens,
        "examples": task.fingerprint,
        **more,
    }
    closed = METRICS[task.metric].closed
    if closed and any(shots):
        own["permutations"] = settings.permutations
    if not closed and 0 in shots:
        own["zero_shot_texts"] = settings.zero_shot_texts
    try:
        found = {**(read_json(path) if path.is_file() and _has_any(folder, "") else here)}
        tasks = {**found.pop("tasks", {})}
        known = {**tasks.get(task.name, {})} if _has_any(folder, f"{task.name}_") else {}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: give another --out") from error
    if not closed and (folder / f"{task.name}_0.jsonl").is_file():  # perhaps before it was a flag
        known = {"zero_shot_texts": NUM_ZERO_SHOT_TEXTS} | known
    before = found | known
    for key, value in (here | own).items():
        if key in before and before[key] != value:
            raise UserError(
                f"{folder.parent} holds predictions with {key}={_short(before[key])}, asked for is "
                f"{_short(value)}: give another --out"
            )
    write_json(path, {**here, "tasks": {**tasks, task.name: known | own}})


def _has_any(folder: pathlib.Path, prefix: str) -> bool:
    """Whether there are predictions yet."""
    return any(folder.glob(f"{glob.escape(prefix)}*.jsonl"))


def _short(value: Any) -> str:
    """For a line of an error: of a hash its beginning, of a long list too."""
    text = str(value) if len(str(value)) == 64 else repr(value)
    return text if len(text) < 64 else f"{text[:12]}..."


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
