"""What a language model's own training shows of itself: its loss on held-out texts."""

import math
from typing import Any

from matplotlib.axes import Axes

from experiments.pretraining.stage_report import Chapter
from experiments.reporting.curves import draw_curves, keys_of
from flamingo_jax.train.metrics import Rows

_PREFIX = "validation/"


def _results(rows: Rows) -> dict[str, Any]:
    last = rows[-1]
    return {"heldout": {k.removeprefix(_PREFIX): last[k] for k in last if k.startswith(_PREFIX)}}


def _table(results: dict[str, Any]) -> list[str]:
    if not results["heldout"]:
        return []
    lines = [
        "",
        "## Held-out texts",
        "",
        "| dataset | nats a token | perplexity |",
        "|---|---|---|",
    ]
    for name, loss in results["heldout"].items():
        lines.append(f"| {name} | {loss:.3f} | {math.exp(loss):.2f} |")
    return lines


def _draw(ax: Axes, rows: Rows) -> None:
    held_out = bool(keys_of(rows, _PREFIX))
    draw_curves(ax, rows, _PREFIX if held_out else "grad_norm")
    ax.set_title("Held-out loss" if held_out else "Norm of the gradient")
    ax.set_ylabel("nats a token" if held_out else "norm")


CHAPTER = Chapter("Language model", "nats a token", _results, _table, _draw)
