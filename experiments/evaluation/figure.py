"""Draws results.png: a panel a task, score against shots, and the paper's models beside it."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.cli import UserError
from flamingo_jax.eval.published import MODELS, published

_COLUMNS = 3
_PANEL_IN = (4.6, 3.4)  # width, height
_DPI = 110
_INK, _GREY, _GRID_LINE, _BLUE = "#22262b", "#7a828c", "#e4e7eb", "#2f6db5"
_PAPER = dict(zip(MODELS, ("#b9c0c8", "#8f98a3", "#5b6570"), strict=True))
_LABELS = {
    "cider": "CIDEr",
    "vqa_accuracy": "VQA accuracy, %",
    "roc_auc": "ROC AUC, %",
    "ndcg": "NDCG, %",
    "mean_wap": "mWAP, %",
    "ivqa_accuracy": "iVQA accuracy, %",
    "top1_top5": "mean of top-1 and top-5, %",
}


def draw(rows: Sequence[dict[str, Any]], model: str, path: pathlib.Path) -> None:
    """Writes the figure; UserError where matplotlib is not installed."""
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise UserError(
            f"{path.name} is not drawn: matplotlib is not installed: pip install matplotlib, and "
            "give the same command again"
        ) from None
    tasks = sorted({row["task"] for row in rows if row["score"] is not None})
    if not tasks:
        return
    columns = min(_COLUMNS, len(tasks))
    height = math.ceil(len(tasks) / columns)
    style = {
        "axes.edgecolor": _GREY,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "grid.color": _GRID_LINE,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "text.color": _INK,
        "text.parse_math": False,
    }
    with mpl.rc_context(style):
        size = (_PANEL_IN[0] * columns, _PANEL_IN[1] * height + 0.5)
        figure = Figure(size, dpi=_DPI, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        figure.suptitle(f"{model}: few-shot scores", x=0.012, ha="left", fontweight="bold")
        panels = figure.subplots(height, columns, squeeze=False).ravel()
        for axes, task in zip(panels, tasks, strict=False):
            _panel(axes, task, [row for row in rows if row["task"] == task])
        for axes in panels[len(tasks) :]:
            axes.set_visible(False)
        figure.savefig(path)


def _panel(axes: Any, task: str, rows: Sequence[dict[str, Any]]) -> None:
    """Shots at equal distances, as 0 to 32 stand in the paper's tables."""
    scored = sorted((row for row in rows if row["score"] is not None), key=lambda r: r["shots"])
    points = published(task)
    shots = sorted({r["shots"] for r in rows} | {p.shots for p in points})
    place = {n: i for i, n in enumerate(shots)}
    for model in MODELS:
        line = [p for p in points if p.model == model]
        if line:
            x, y = [place[p.shots] for p in line], [p.score for p in line]
            axes.plot(x, y, "o--", color=_PAPER[model], ms=3, lw=1.2, label=f"{model}, paper")
    x, y = [place[r["shots"]] for r in scored], [r["score"] for r in scored]
    low = [max(0.0, r["score"] - r["low"]) for r in scored]
    high = [max(0.0, r["high"] - r["score"]) for r in scored]
    label = "this model, similar examples" if scored[0]["retrieval"] == "rices" else "this model"
    axes.errorbar(x, y, [low, high], fmt="o-", color=_BLUE, capsize=4, lw=2, label=label)
    for row in rows:
        if row["score"] is None and row["note"].startswith("out of context"):
            axes.annotate("OOC", (place[row["shots"]], 0), ha="center", va="bottom", color=_GREY)
    axes.set_xticks(list(place.values()), [str(n) for n in shots])
    axes.set_xlim(-0.4, len(shots) - 0.6)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.set_title(f"{task}, {scored[0]['num_queries']} queries")
    axes.set_xlabel("examples in the prompt")
    metric = scored[0]["metric"]
    axes.set_ylabel(_LABELS.get(metric, "accuracy, %"))
    axes.legend(loc="best")
