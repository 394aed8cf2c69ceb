"""Draws results.png: a panel a task, score against shots, and the paper's models beside it."""

import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from experiments.evaluation.results import num_queries
from flamingo_jax.eval.published import FINE_TUNED, MODELS, published

_COLUMNS = 3
_PANEL_IN = 3.4  # height
_PAPER = dict(zip((*MODELS, FINE_TUNED), ("#b9c0c8", "#8f98a3", "#5b6570", "#2f3740"), strict=True))
_LABELS = {
    "cider": "CIDEr",
    "vqa_accuracy": "VQA accuracy, %",
    "vqa_accuracy_of_stems": "VQA accuracy of stems, %",
    "roc_auc": "ROC AUC, %",
    "ndcg": "NDCG, %",
    "mean_wap": "mWAP, %",
    "ivqa_accuracy": "iVQA accuracy, %",
    "wups": "WUPS, %",
    "top1_top5": "mean of top-1 and top-5, %",
}


def draw(rows: Sequence[dict[str, Any]], model: str, path: pathlib.Path) -> None:
    """Writes the figure; one line on standard error where matplotlib is not installed."""
    try:
        import matplotlib as mpl  # an optional dependency, wanted by figures only

        from experiments.reporting import figure_style
    except ModuleNotFoundError:
        print(
            f"{path} is not drawn, for matplotlib is not installed: pip install matplotlib, and "
            "give the same command again",
            file=sys.stderr,
        )
        return
    tasks = sorted({row["task"] for row in rows if row["score"] is not None})
    if not tasks:
        return
    height = math.ceil(len(tasks) / _COLUMNS)
    with mpl.rc_context(figure_style.STYLE):
        figure = figure_style.new_figure(_PANEL_IN * height + 0.5)
        title = f"{model}: few-shot scores, 95% intervals over queries"
        figure.suptitle(title, fontsize=14, fontweight="bold", x=0.012, ha="left")
        panels = figure.subplots(height, _COLUMNS, squeeze=False).ravel()
        for axes, task in zip(panels, tasks, strict=False):
            _panel(axes, [row for row in rows if row["task"] == task], figure_style)
        for axes in panels[len(tasks) :]:
            axes.set_visible(False)
        figure.savefig(path)


def _panel(axes: Any, rows: Sequence[dict[str, Any]], style: Any) -> None:
    """Shots at equal distances, as 0 to 32 stand in the paper's tables."""
    scored = sorted((row for row in rows if row["score"] is not None), key=lambda r: r["shots"])
    first = scored[0]
    tuned = any(row.get("zero_shot_texts") == 0 for row in rows)
    points = [] if first["is_own"] else published(first["task"], fine_tuned=tuned)
    shots = sorted({row["shots"] for row in rows} | {point.shots for point in points})
    place = {number: i for i, number in enumerate(shots)}
    for model, color in _PAPER.items():
        line = [point for point in points if point.model == model]
        if line:
            x, y = [place[point.shots] for point in line], [point.score for point in line]
            axes.plot(x, y, "o--", color=color, ms=3, lw=1.2, label=f"{model}, paper")
    x, y = [place[row["shots"]] for row in scored], [row["score"] for row in scored]
    low = [max(0.0, row["score"] - row["low"]) for row in scored]
    high = [max(0.0, row["high"] - row["score"]) for row in scored]
    similar = any(row["retrieval"] == "rices" for row in scored)
    look = {"fmt": "o-", "color": style.BLUE, "capsize": 4, "lw": 2, "clip_on": False}
    axes.errorbar(x, y, [low, high], label="this model", **look)
    for row in rows:
        if row["note"].startswith("out of context"):
            where = (place[row["shots"]], 0)
            axes.annotate("OOC", where, ha="center", va="bottom", color=style.GREY)
    axes.set_xticks(list(place.values()), [str(number) for number in shots])
    axes.set_xlim(-0.4, len(shots) - 0.6)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    number = num_queries(scored)
    axes.set_title(f"{first['task']}, {number} {'query' if number == '1' else 'queries'}")
    axes.set_xlabel("similar examples in the prompt" if similar else "examples in the prompt")
    axes.set_ylabel(_LABELS.get(first["metric"], "accuracy, %"))
    if points:  # else there is one line, which needs no name
        axes.legend(loc="best")
