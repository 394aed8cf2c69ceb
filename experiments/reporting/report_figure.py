"""Draws report.png: loss, gates, held-out scores, few-shot scores, and pictures with their text.

Panels whose numbers are not there are left out.
"""

import bisect
import itertools
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.reporting.curves import draw_curves, keys_of, series, short_name
from experiments.reporting.figure_style import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    GRID_LINE,
    INK,
    PINK,
    STYLE,
    WIDTH_IN,
    new_figure,
    only_axes,
)
from experiments.reporting.report_data import FewShotScore, Heldout, Report, SamplePicture
from flamingo_jax.train.metrics import Rows

_GRID_COLUMNS = 6
_GRID_TITLE_IN = 0.5
_PICTURE_IN = 1.75
_LINE_IN = 0.19
_CELL_IN = (WIDTH_IN / _GRID_COLUMNS, _PICTURE_IN + 4 * _LINE_IN + 0.25)  # width, height
_MAX_LEGEND = 12
_MAX_DOTS = 30  # or some more, of a validation's line
_TEXT_COLUMNS, _TEXT_LINES, _CUT = 24, 2, " ..."  # below a picture


def draw_report(report: Report, rows: Rows) -> Figure:
    """The whole figure, from a report and the rows of metrics.jsonl."""
    panels: list[Callable[[SubFigure], None]] = []
    if rows:
        panels.append(lambda part: _draw_loss(only_axes(part), rows))
    if any(key.startswith("gate/") for row in rows for key in row):
        panels.append(lambda part: _draw_gates(only_axes(part), rows))
    if (heldout := report.heldout) is not None:
        panels.append(lambda part: _draw_heldout(part, heldout, report.few_shot))
    if report.few_shot:
        panels.append(lambda part: _draw_few_shot(only_axes(part), report.few_shot))
    panel_rows = math.ceil(len(panels) / 2)
    heights = [3.5] * panel_rows
    if report.samples:
        heights.append(_grid_height_in(len(report.samples)))
    with mpl.rc_context(STYLE):
        figure = new_figure(sum(heights) + 0.7)
        figure.suptitle(_headline(report, rows), fontsize=14, fontweight="bold", x=0.012, ha="left")
        if heights:
            parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
            halves = [half for part in parts[:panel_rows] for half in part.subfigures(1, 2)]
            for half, draw in zip(halves, panels, strict=False):
                draw(half)
            if report.samples:
                _draw_grid(parts[-1], report.samples)
    return figure


def draw_samples(samples: Sequence[SamplePicture]) -> Figure:
    """The grid of pictures alone."""
    with mpl.rc_context(STYLE):
        figure = new_figure(_grid_height_in(len(samples)), layout="none")
        _draw_grid(figure, samples)
    return figure


def _headline(report: Report, rows: Rows) -> str:
    steps = f"{rows[-1]['step']:,} steps, " if rows else ""
    minutes = report.wall_s / 60
    took = f"{minutes:.1f} minutes" if minutes >= 1 else f"{report.wall_s:.0f} seconds"
    return f"Flamingo, {report.variant}: {steps}{took}, peak memory {report.peak_rss_gib:.1f} GiB"


def _draw_loss(ax: Axes, rows: Rows) -> None:
    num_curves = draw_curves(ax, rows, "loss/")
    handles, names = ax.get_legend_handles_labels()
    colors = {name: line.get_color() for line, name in zip(handles, names, strict=True)}
    handles, names = handles[:_MAX_LEGEND], names[:_MAX_LEGEND]
    if validated := keys_of(rows, "validation/"):
        held_out = [key.removeprefix("validation/") for key in validated]
        drawn = _draw_validation(ax, rows, held_out, colors)
        handles, names = handles + drawn, names + [line.get_label() for line in drawn]
    ax.set_title("Training loss, and held out (dots)" if validated else "Training loss")
    ax.set_ylabel("nats a token")
    title = f"{_MAX_LEGEND} of {num_curves} datasets" if num_curves > _MAX_LEGEND else None
    columns = 1 + (len(handles) > 6)
    ax.legend(handles, names, title=title, ncols=columns)


def _draw_validation(
    ax: Axes, rows: Rows, names: Sequence[str], colors: Mapping[str, str]
) -> list[Line2D]:
    """Right and other pictures of each dataset, and between them what seeing saves; the lines.

    A dataset has the colour of the one that is trained on under its name, or else one that is free.
    """
    lines = []
    free = itertools.cycle([color for color in CYCLE if color not in colors.values()] or CYCLE)
    for name in names:
        color = colors.get(short_name(name)) or next(free)
        keys = f"validation/{name}", f"validation_shuffled/{name}"
        with_pictures = any(row.get(keys[1]) is not None for row in rows)
        used = keys if with_pictures else keys[:1]  # texts have no other ones
        both = [row for row in rows if all(row.get(key) is not None for key in used)]
        steps, right = series(both, keys[0])
        short, dots = short_name(name), max(1, len(steps) // _MAX_DOTS)
        line = {"color": color, "linewidth": 1.5, "markersize": 4, "markevery": dots}
        if with_pictures:
            other = series(both, keys[1])[1]
            label = f"{short}, other pictures"
            lines += ax.plot(steps, other, "o:", mfc="white", label=label, **line)
            ax.fill_between(steps, right, other, color=color, alpha=0.1, linewidth=0)
        lines += ax.plot(steps, right, "o-", label=f"{short}, held out", **line)
    return lines


def _draw_gates(ax: Axes, rows: Rows) -> None:
    keys = keys_of(rows, "gate/")
    layers = list(dict.fromkeys(re.sub(r"\D*$", "", key) for key in keys))  # gate/8.ffw: gate/8
    colors = mpl.colormaps["viridis"](np.linspace(0.0, 0.88, len(layers)))
    for key in keys:
        color = colors[layers.index(re.sub(r"\D*$", "", key))]
        steps, values = series(rows, key)
        style = "--" if "ffw" in key else "-"
        label = key.removeprefix("gate/")
        ax.plot(steps, values, style, color=color, linewidth=1.8, label=label)
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set_title("Gates: what multiplies each branch of a gated block")
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylabel("tanh of the gate, times branch_scale")
    if len(keys) <= _MAX_LEGEND:
        ax.legend(title="before layer", ncols=1 + (len(keys) > 6), title_fontsize=9)
    else:
        first, last = (keys[i].removeprefix("gate/") for i in (0, -1))
        ax.text(0.01, 0.97, f"dark: {first}, light: {last}", transform=ax.transAxes, va="top")


def _draw_heldout(part: SubFigure, heldout: Heldout, few_shot: Sequence[FewShotScore]) -> None:
    left, right = part.subplots(1, 2, width_ratios=[3, 2])
    losses = [heldout.nll_right, heldout.nll_shuffled]
    bars = left.bar(["right picture", "another picture"], losses, color=[GREEN, GREY], width=0.55)
    left.bar_label(bars, fmt="%.2f", padding=2)
    left.margins(y=0.15)
    left.grid(axis="x", visible=False)
    left.set_ylabel("nats a token")
    left.set_title(f"Held-out loss: seeing saves {losses[1] - losses[0]:.2f} nats")
    _draw_ranks(right, heldout, [s for s in few_shot if s.rank1 is not None])


def _draw_ranks(ax: Axes, heldout: Heldout, few_shot: Sequence[FewShotScore]) -> None:
    """One bar without examples and one for each number of them."""
    scores = sorted(few_shot, key=lambda s: s.shots)
    shares = [heldout.rank1, *(s.rank1 for s in scores)]
    x, means = np.arange(len(shares)), np.array([100 * s.mean for s in shares])
    low, high = (np.array([100 * getattr(s, end) for s in shares]) for end in ("low", "high"))
    ax.bar(x, means, color=BLUE, width=0.55)
    errors = [np.maximum(means - low, 0), np.maximum(high - means, 0)]
    ax.errorbar(x, means, errors, fmt="none", color=INK, capsize=4)
    for place, mean, top in zip(x, means, high, strict=True):  # a bar of 0% holds no label
        above = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "va": "bottom"}
        ax.annotate(f"{mean:.0f}%", (place, top), color=INK, **above)
    chance = 100 / heldout.num_candidates
    ax.axhline(chance, color=PINK, linestyle="--", linewidth=1.5)
    ax.text(len(shares) - 0.32, chance, "chance", color=PINK, va="bottom", ha="right")
    ax.set_xlim(-0.7, len(shares) - 0.3)
    ax.set_ylim(0, max(10.0, 1.2 * high.max(), 1.2 * chance))
    ax.set_xticks(x, ["0", *(str(s.shots) for s in scores)])
    kind = " (RICES)" if any(s.retrieval == "rices" for s in scores) else ""
    ax.set_xlabel(f"examples in the prompt{kind}")
    ax.grid(axis="x", visible=False)
    ax.set_ylabel(f"% of {heldout.rank1.num_queries} queries")
    ax.set_title(f"Right name first of {heldout.num_candidates}")


def _draw_few_shot(ax: Axes, scores: Sequence[FewShotScore]) -> None:
    names = {"random": "random examples", "rices": "most similar pictures (RICES)"}
    zero = [s for s in scores if s.shots == 0]
    for i, (retrieval, color) in enumerate((("random", GREY), ("rices", BLUE))):
        own = [s for s in scores if s.retrieval == retrieval and s.shots > 0]
        line = sorted([*zero[:1], *own], key=lambda s: s.shots)
        if not own and (i or not zero):
            continue
        means = np.array([100 * s.cider.mean for s in line])
        low = np.array([100 * s.cider.low for s in line])
        high = np.array([100 * s.cider.high for s in line])
        shift = 0.05 if i else -0.05  # side by side, so that both intervals can be seen
        x = [s.shots + (shift if s.shots else 0) for s in line]
        errors = [np.maximum(means - low, 0), np.maximum(high - means, 0)]
        look = {"fmt": "o-", "color": color, "capsize": 4, "lw": 2, "clip_on": False}
        ax.errorbar(x, means, errors, label=names[retrieval], **look)
    shots = sorted({s.shots for s in scores})
    ax.set_xticks(shots, [str(s) for s in shots])
    ax.set_ylim(bottom=0)
    ax.margins(y=0.12)
    ax.set_title(f"Few-shot captioning, {scores[0].cider.num_queries} held-out queries")
    ax.set_xlabel("examples in the prompt (0: two texts without pictures)")
    ax.set_ylabel("CIDEr x 100, 95% interval")
    ax.legend(loc="best")


def _grid_height_in(num_samples: int) -> float:
    return _GRID_TITLE_IN + _CELL_IN[1] * math.ceil(num_samples / _GRID_COLUMNS)


def _draw_grid(part: SubFigure | Figure, samples: Sequence[SamplePicture]) -> None:
    """Cells of fixed size, so that long texts never move or shrink the pictures."""
    height_in = _grid_height_in(len(samples))
    top_in = height_in - 0.1
    title = "Held-out pictures: what the model wrote (green: right), and the true name"
    part.text(0.012, top_in / height_in, title, va="top", fontsize=11.5, fontweight="bold")
    width, height = _PICTURE_IN / WIDTH_IN, _PICTURE_IN / height_in
    for i, sample in enumerate(samples):
        row, column = divmod(i, _GRID_COLUMNS)
        center = (column + 0.5) * _CELL_IN[0] / WIDTH_IN
        bottom_in = height_in - _GRID_TITLE_IN - row * _CELL_IN[1] - _PICTURE_IN
        ax = part.add_axes((center - width / 2, bottom_in / height_in, width, height))
        ax.imshow(sample.picture)
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set(visible=True, color=GREEN if sample.right else GRID_LINE, linewidth=1.5)
        written = _wrap(sample.written.strip() or "(nothing)")
        text_in = bottom_in - 0.08
        color = GREEN if sample.right else GREY
        below = {"ha": "center", "va": "top"}
        part.text(center, text_in / height_in, written, color=color, fontweight="bold", **below)
        if not sample.right:
            text_in -= _LINE_IN * (written.count("\n") + 1)
            part.text(center, text_in / height_in, _wrap(sample.truth[0]), fontsize=9.5, **below)


def _wrap(text: str) -> str:
    """At most two lines of 24 columns, of which a wide (Chinese, say) letter takes two."""
    rest, lines = " ".join(text.split()), []
    while rest and len(lines) < _TEXT_LINES:
        line = _beginning(rest, _TEXT_COLUMNS)
        if len(lines) == _TEXT_LINES - 1 and line != rest:
            line = _beginning(rest, _TEXT_COLUMNS - len(_CUT)) + _CUT
        lines.append(line)
        rest = rest[len(line) :].lstrip()
    return "\n".join(lines)


def _beginning(text: str, columns: int) -> str:
    """What fits, up to a space, behind a hyphen or beside a wide letter where there is one."""
    is_wide = [unicodedata.east_asian_width(letter) in "WF" for letter in text]
    fitting = bisect.bisect_right(list(itertools.accumulate(1 + w for w in is_wide)), columns)
    if fitting == len(text):
        return text
    for cut in range(fitting, 0, -1):
        if text[cut] == " " or text[cut - 1] == "-" or is_wide[cut] or is_wide[cut - 1]:
            return text[:cut].rstrip()
    return text[:fitting]
