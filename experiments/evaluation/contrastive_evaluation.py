"""What a contrastive model makes of benchmarks that it was not trained for.

Paper: section on the contrastive model, Tables 7 and 9. A task of classes is answered by the class
whose descriptions are nearest to the picture; of a task of captions, each picture seeks its own
among all captions of all pictures, and each caption its own picture.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from data_pipelines import progress_bar
from data_pipelines.whole_files import write_json, write_whole
from experiments.cli import UserError
from experiments.evaluation import frames
from experiments.evaluation.kept_points import KeptPoints
from experiments.storage.workdir import Workdir
from flamingo_jax import __version__
from flamingo_jax.contrastive_model import ContrastiveModel
from flamingo_jax.decode.prompt_batch import VideoSampling
from flamingo_jax.eval import recall, zero_shot
from flamingo_jax.eval.bootstrap import Interval
from flamingo_jax.eval.metrics import METRICS, UNIT, Prediction, summarize
from flamingo_jax.eval.published_contrastive import published
from flamingo_jax.eval.seeding import first_queries
from flamingo_jax.eval.task import Example, Task
from flamingo_jax.eval.wilson import wilson_share
from flamingo_jax.prompts import VideoPart
from flamingo_jax.weights import stage_folder
from flamingo_jax.weights.files import checkpoint_files

CLASSES, CAPTIONS = ("top1", "top1_top5"), "cider"  # metrics of the tasks that there are
SAMPLING = VideoSampling(num_frames=8, fps=1.0)  # as in training on videos
MAX_CAPTIONS = 5  # of a picture; some of COCO have more
_PICTURES_AT_ONCE = 64

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of a whole command."""

    num_queries: int | None = None  # of each task; None: all
    max_skipped_share: float = 0.1
    templates: Sequence[str] = ()  # of classes; none: those of `eval.zero_shot`

    def __post_init__(self):
        if self.templates:
            zero_shot.check_templates(self.templates)
        if not 0 <= self.max_skipped_share <= 1:
            raise ValueError(f"max_skipped_share={self.max_skipped_share}: use a share, 0 to 1")


def check(task: Task) -> None:
    """UserError for a task that has neither classes nor captions, such as one of questions."""
    of_classes = task.metric in CLASSES and not any(query.fields for query in task.queries)
    if task.metric != CAPTIONS and not of_classes:
        raise UserError(
            f"{task.name}: neither classes nor captions: use imagenet, kinetics700, coco, "
            "flickr30k, vatex, youcook2, or your own file of labels or captions"
        )


def check_folder(out: pathlib.Path) -> None:
    """UserError where results cannot be written, or would be in the place of another command's."""
    if out.is_file():
        raise UserError(f"--out={out} is a file: give a folder")
    if (out / "predictions").is_dir():
        raise UserError(f"--out={out} holds results of experiments.evaluate: give another folder")


def run(
    model: ContrastiveModel,
    directory: pathlib.Path,
    tasks: Sequence[Task],
    settings: Settings,
    out: Workdir,
    command: Sequence[str],
) -> list[Json]:
    """Scores every task, and writes results.json and results.md into `out` after each.

    Of a benchmark's pictures and videos those are embedded that no earlier command has left there.
    """
    weights = checkpoint_files.sha256(directory / stage_folder.WEIGHTS)
    made_with = [weights, repr(model.config), repr(SAMPLING)]
    about = {
        "model": str(directory),
        "versions": {"flamingo_jax": __version__, "jax": jax.__version__},
        "command": list(command),
        "unit": "100 is best",
    }
    rows: list[Json] = []
    for task in tasks:
        of_task = [*made_with, task.fingerprint]
        kept = KeptPoints(out.folder / "points", task.name, of_task, out.keep)
        rows += evaluate(model, task, settings, kept)
        write_json(out.folder / "results.json", about | {"results": rows})
        write_whole(out.folder / "results.md", _markdown(directory, rows).encode())
        out.keep()
    return rows


def evaluate(
    model: ContrastiveModel, task: Task, settings: Settings, kept: KeptPoints
) -> list[Json]:
    """A row for each score of the task; UserError where too much of it cannot be read."""
    check(task)
    queries = first_queries(task.queries, settings.num_queries)
    if len({query.id for query in queries}) < len(queries):
        raise UserError(f"{task.name}: two queries have one id, so the files are damaged")
    points, reasons = media_points(model, task.name, queries, kept)
    queries, skipped = frames.usable(
        task.name, "queries", queries, lambda e: reasons.get(e.path), settings.max_skipped_share
    )
    pictures = np.stack([points[e.path] for e in queries])
    about: Json = {"task": task.name, "split": task.split, "skipped_queries": skipped}
    if task.metric == CAPTIONS:
        found = _retrieval(model, queries, pictures)
    else:
        templates = settings.templates or (
            zero_shot.VIDEOS if isinstance(queries[0].media, VideoPart) else zero_shot.PICTURES
        )
        about["templates"] = list(templates)
        found = {task.metric: _classification(model, task, queries, pictures, templates)}
    return [
        about
        | {"metric": metric, "score": x.mean, "low": x.low, "high": x.high}
        | {"num_queries": x.num_queries, "interval": "95%, over queries"}
        | {"published": None if task.is_own else published(task.name, metric)}
        for metric, x in found.items()
    ]


def media_points(
    model: ContrastiveModel, name: str, examples: Sequence[Example], kept: KeptPoints
) -> tuple[Mapping[Any, np.ndarray], Mapping[Any, str]]:
    """By path, f32[J] of what can be read, and why the others cannot.

    While the devices embed some, the host decodes the next.
    """
    ids = {e.path: e.id for e in examples}  # of those with one picture the last one's
    points = {path: kept.points[id] for path, id in ids.items() if id in kept.points}
    media = {e.path: e.media for e in examples if e.path not in points}
    how = model.config.vision.preprocessing, SAMPLING
    reasons: dict[Any, str] = {}

    def embed(chunk: Sequence[Any], reading: Sequence[Future]) -> None:
        good = {}
        for path, future in zip(chunk, reading, strict=True):
            own, reason = future.result()
            if own is None:
                reasons[path] = reason
            else:
                good[path] = own
        if good:
            new = dict(zip(good, model.embed_media(list(good.values())), strict=True))
            points.update(new)
            kept.add({ids[path]: point for path, point in new.items()})
        bar.update(len(chunk))

    with (
        ThreadPoolExecutor(frames.THREADS) as pool,
        progress_bar.bar(len(ids), f"{name}: embedding media", "media") as bar,
    ):
        bar.update(len(points))
        waiting: list[tuple[Sequence[Any], list[Future]]] = []
        for chunk in frames.chunks(list(media), media, _PICTURES_AT_ONCE):
            reading = [pool.submit(frames.look, media[path], *how) for path in chunk]
            waiting.append((chunk, reading))
            if len(waiting) == 2:
                embed(*waiting.pop(0))
        for last in waiting:
            embed(*last)
    kept.write()
    return points, reasons


def _classification(
    model: ContrastiveModel,
    task: Task,
    queries: Sequence[Example],
    pictures: np.ndarray,  # f32[queries, J]
    templates: Sequence[str],
) -> Interval:
    """The task's own metric, cosines in the place of log-likelihoods."""
    choices = [task.candidates_of(query) for query in queries]
    names = list(dict.fromkeys(name for own in dict.fromkeys(choices) for name in own))
    classes = zero_shot.class_points(model.embed_texts, names, templates)
    number = {name: i for i, name in enumerate(names)}
    columns = {own: [number[name] for name in own] for own in choices}
    cosines = pictures @ classes.T
    scores = [
        Prediction(candidates=own, log_probs=row[columns[own]])
        for own, row in zip(choices, cosines, strict=True)
    ]
    metric = METRICS[task.metric]
    interval, _, _ = summarize(metric, queries, [metric.each(queries, scores)])
    return interval


def _retrieval(
    model: ContrastiveModel, queries: Sequence[Example], pictures: np.ndarray
) -> dict[str, Interval]:
    """Recalls in both directions, at the paper's K."""
    captions = [(i, text) for i, e in enumerate(queries) for text in e.references[:MAX_CAPTIONS]]
    texts = model.embed_texts([text for _, text in captions])
    owners, rows = np.array([i for i, _ in captions]), np.arange(len(queries))
    scores = pictures @ texts.T
    ways = {recall.TEXT: (scores, rows, owners), recall.PICTURE: (scores.T, owners, rows)}
    return {
        f"{way}@{k}": _in_units(wilson_share(recall.in_nearest(*asked, k)))
        for way, asked in ways.items()
        for k in recall.AT
    }


def _in_units(x: Interval) -> Interval:
    return Interval(UNIT * x.mean, UNIT * x.low, UNIT * x.high, x.num_queries)


def _markdown(directory: pathlib.Path, rows: Sequence[Json]) -> str:
    lines = [
        "# Scores of the contrastive model, without examples",
        "",
        f"Model `{directory}`. 100 is best; 95% intervals over queries. Beside them the paper's "
        "NFNet-F6 (Tables 7 and 9).",
        "",
        "| task | split | metric | score | interval | queries | left out | paper |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        left_out = ", ".join(f"{n} {reason}" for reason, n in row["skipped_queries"].items())
        paper = "" if row["published"] is None else f"{row['published']:.1f}"
        lines.append(
            f"| {row['task']} | {row['split']} | {row['metric']} | {row['score']:.1f} | "
            f"{row['low']:.1f} to {row['high']:.1f} | {row['num_queries']:,} | "
            f"{left_out or 'none'} | {paper} |"
        )
    return "\n".join(lines) + "\n"
