"""Curves over the steps of a run, from the rows of metrics.jsonl."""

import itertools
import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiments.reporting.figure_style import CYCLE
from flamingo_jax.train.metrics import Rows

_SMOOTHED_SHARE = 0.05  # of the run, under the thick curve; the thin one was measured
_LINE_STYLES = ("-", "--", ":", "-.")  # in turn, each for all colours of the cycle
_MAX_NAME = 24  # characters of a dataset's name in the legend


def draw_curves(ax: Axes, rows: Rows, prefix: str) -> int:
    """A curve for each key that begins with `prefix`, named by the rest; returns how many."""
    keys = keys_of(rows, prefix) or [prefix.removesuffix("/")]
    for key, (style, color) in zip(
        keys, itertools.cycle(itertools.product(_LINE_STYLES, CYCLE)), strict=False
    ):
        steps, values = series(rows, key)
        label = short_name(key.removeprefix(prefix))
        ax.plot(steps, values, color=color, alpha=0.25, linewidth=1)
        ax.plot(steps, smooth(values), style, color=color, linewidth=2, label=label)
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return len(keys)


def series(rows: Rows, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the rows that have a number for `key`."""
    pairs = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return np.array([s for s, _ in pairs]), np.array([v for _, v in pairs], np.float64)


def keys_of(rows: Rows, prefix: str) -> list[str]:
    """Keys that begin with `prefix`, layer 2 before layer 10."""
    keys = {key for row in rows for key in row if key.startswith(prefix)}
    return sorted(keys, key=lambda k: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", k)])


def short_name(name: str) -> str:
    """Its beginning and end, which tell datasets of one kind apart."""
    half = (_MAX_NAME - 3) // 2
    return name if len(name) <= _MAX_NAME else f"{name[:half]}...{name[-half:]}"


def smooth(values: np.ndarray) -> np.ndarray:
    """An exponential moving average without the bias towards its start."""
    decay = max(0.0, 1 - 1 / max(1.0, _SMOOTHED_SHARE * len(values)))
    total = weight = 0.0
    smoothed = np.empty_like(values)
    for i, value in enumerate(values):
        total = decay * total + (1 - decay) * value
        weight = decay * weight + (1 - decay)
        smoothed[i] = total / weight
    return smoothed
