"""What the training of a part did: report.json, report.md and report.png in its workdir."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from data_pipelines.whole_files import open_whole, write_json, write_whole
from experiments.reporting.curves import draw_curves
from experiments.reporting.figure_style import STYLE, figure_pixels, new_figure, only_axes
from experiments.training.run_report import Clock, peak_rss_gib
from flamingo_jax.train import metrics
from flamingo_jax.train.metrics import Rows

_HEIGHT_IN = 4.2


@dataclasses.dataclass(frozen=True)
class Chapter:
    """What is a stage's own in its report, made of the rows of metrics.jsonl."""

    title: str
    loss_unit: str
    results: Callable[[Rows], dict[str, Any]]  # into report.json
    table: Callable[[dict[str, Any]], list[str]]  # the same as lines of Markdown
    draw: Callable[[Axes, Rows], None]  # beside the loss


def write(
    workdir: pathlib.Path, chapter: Chapter, variant: str, place: dict[str, Any], clock: Clock
) -> None:
    """The three files, each whole or not at all."""
    rows = metrics.read_rows(workdir / metrics.FILE_NAME)
    results = chapter.results(rows)
    report = {
        "variant": variant,
        "steps": rows[-1]["step"],
        "wall_s": clock.wall_s(),
        "peak_rss_gib": peak_rss_gib(),
        "goodput": metrics.stepping_s(rows) / clock.wall_s(),
        "loss": rows[-1]["loss"],
        **results,
        "data": {
            name: {
                "examples": at["examples"],
                "skipped": sum(at["skipped"].values()),
                "skipped_by_reason": at["skipped"],
            }
            for name, at in place.items()
        },
    }
    write_json(workdir / "report.json", report)
    with open_whole(workdir / "report.png") as file:
        pixels = _draw(chapter, report, rows)
        Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    lines = [*_summary(chapter, report), *chapter.table(results), *_data(report)]
    write_whole(workdir / "report.md", ("\n".join(lines) + "\n").encode())


def _summary(chapter: Chapter, report: dict[str, Any]) -> list[str]:
    return [
        f"# {chapter.title}, {report['variant']}",
        "",
        "![curves](report.png)",
        "",
        "| | |",
        "|---|---|",
        f"| steps | {report['steps']} |",
        f"| wall time | {report['wall_s'] / 60:.1f} minutes |",
        f"| of it in training steps (goodput) | {report['goodput']:.0%} |",
        f"| peak memory | {report['peak_rss_gib']:.2f} GiB |",
        f"| last training loss | {report['loss']:.3f} {chapter.loss_unit} |",
    ]


def _data(report: dict[str, Any]) -> list[str]:
    lines = ["", "## Data", "", "| dataset | examples | skipped |", "|---|---|---|"]
    for name, count in report["data"].items():
        lines.append(f"| {name} | {count['examples']} | {count['skipped']} |")
    return lines


def _draw(chapter: Chapter, report: dict[str, Any], rows: Rows) -> np.ndarray:
    with mpl.rc_context(STYLE):
        figure = new_figure(_HEIGHT_IN)
        title = f"{chapter.title}, {report['variant']}: {report['steps']:,} steps"
        figure.suptitle(title, fontsize=14, fontweight="bold", x=0.012, ha="left")
        left, right = map(only_axes, figure.subfigures(1, 2))
        draw_curves(left, rows, "loss/")
        left.set_title("Training loss")
        left.set_ylabel(chapter.loss_unit)
        left.legend()
        chapter.draw(right, rows)
        right.legend()
    return figure_pixels(figure)
