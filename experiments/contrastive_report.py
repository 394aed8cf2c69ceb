"""What a run of the contrastive stage did: report.json, report.md and report.png."""

import pathlib
from typing import Any

import matplotlib as mpl
from PIL import Image

from data_pipelines.whole_files import open_whole, write_json, write_whole
from experiments.curves import draw_curves, keys_of
from experiments.figure_style import STYLE, figure_pixels, new_figure, only_axes
from experiments.retrieval import AT
from experiments.run_report import Clock, peak_rss_gib
from flamingo_jax.train import metrics
from flamingo_jax.train.metrics import Rows

_HEIGHT_IN = 4.2


def write(workdir: pathlib.Path, variant: str, place: dict[str, Any], clock: Clock) -> None:
    """The three files, each whole or not at all, from metrics.jsonl and the place in the data."""
    rows = metrics.read_rows(workdir / metrics.FILE_NAME)
    names = [key.removeprefix("text_recall/").removesuffix("@1") for key in _last_recalls(rows)]
    report = {
        "variant": variant,
        "steps": rows[-1]["step"],
        "wall_s": clock.wall_s(),
        "peak_rss_gib": peak_rss_gib(),
        "goodput": metrics.stepping_s(rows) / clock.wall_s(),
        "loss": rows[-1]["loss"],
        "retrieval": {
            name: {
                f"{way}@{k}": rows[-1][f"{way}/{name}@{k}"]
                for way in ("text_recall", "picture_recall")
                for k in AT
            }
            for name in names
        },
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
        Image.fromarray(_draw(report, rows)).save(file, format="PNG", optimize=True)
    write_whole(workdir / "report.md", _markdown(report).encode())


def _last_recalls(rows: Rows) -> list[str]:
    return [key for key in rows[-1] if key.startswith("text_recall/") and key.endswith("@1")]


def _markdown(report: dict[str, Any]) -> str:
    lines = [
        f"# Contrastive stage, {report['variant']}",
        "",
        "![curves](report.png)",
        "",
        "| | |",
        "|---|---|",
        f"| steps | {report['steps']} |",
        f"| wall time | {report['wall_s'] / 60:.1f} minutes |",
        f"| of it in training steps (goodput) | {report['goodput']:.0%} |",
        f"| peak memory | {report['peak_rss_gib']:.2f} GiB |",
        f"| last training loss | {report['loss']:.3f} nats a pair, both directions |",
    ]
    if report["retrieval"]:
        at = " | ".join(f"R@{k}" for k in AT)
        lines += [
            "",
            "## Retrieval among held-out pairs",
            "",
            f"| dataset | picture to text {at} | text to picture {at} |",
            "|---|" + "---|" * 2 * len(AT),
        ]
    for name, found in report["retrieval"].items():
        cells = [f"{found[f'{w}@{k}']:.1%}" for w in ("text_recall", "picture_recall") for k in AT]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "## Data", "", "| dataset | pairs | skipped |", "|---|---|---|"]
    for name, count in report["data"].items():
        lines.append(f"| {name} | {count['examples']} | {count['skipped']} |")
    return "\n".join(lines) + "\n"


def _draw(report: dict[str, Any], rows: Rows):
    with mpl.rc_context(STYLE):
        figure = new_figure(_HEIGHT_IN)
        title = f"Contrastive stage, {report['variant']}: {report['steps']:,} steps"
        figure.suptitle(title, fontsize=14, fontweight="bold", x=0.012, ha="left")
        left, right = map(only_axes, figure.subfigures(1, 2))
        draw_curves(left, rows, "loss/")
        left.set_title("Training loss")
        left.set_ylabel("nats a pair, both directions")
        left.legend()
        held_out = bool(keys_of(rows, "text_recall/"))
        draw_curves(right, rows, "text_recall/" if held_out else "accuracy/")
        right.set_title(
            "Held-out pictures: own text among the K nearest"
            if held_out
            else "Pictures nearest to their own text, of the batch"
        )
        right.set_ylim(-0.02, 1.02)
        right.legend()
    return figure_pixels(figure)
