"""What the contrastive stage shows of itself: retrieval among held-out pairs (paper, Table 9)."""

from typing import Any

from matplotlib.axes import Axes

from experiments.pretraining.stage_report import Chapter
from experiments.reporting.curves import draw_curves, keys_of
from flamingo_jax.eval.recall import AT, PICTURE, TEXT
from flamingo_jax.train.metrics import Rows

_WAYS = (TEXT, PICTURE)


def _results(rows: Rows) -> dict[str, Any]:
    last = rows[-1]
    found = [k for k in last if k.startswith(f"{TEXT}/") and k.endswith("@1")]
    names = [key.removeprefix(f"{TEXT}/").removesuffix("@1") for key in found]
    return {
        "retrieval": {
            name: {f"{way}@{k}": last[f"{way}/{name}@{k}"] for way in _WAYS for k in AT}
            | {"num_pairs": last.get(f"validation_pairs/{name}")}
            for name in names
        }
    }


def _table(results: dict[str, Any]) -> list[str]:
    if not results["retrieval"]:
        return []
    at = " | ".join(f"R@{k}" for k in AT)
    lines = [
        "",
        "## Retrieval among held-out pairs",
        "",
        f"| dataset | pairs | picture to text {at} | text to picture {at} |",
        "|---|---|" + "---|" * 2 * len(AT),
    ]
    for name, found in results["retrieval"].items():
        cells = [f"{found[f'{way}@{k}']:.1%}" for way in _WAYS for k in AT]
        lines.append(f"| {name} | {found['num_pairs'] or ''} | {' | '.join(cells)} |")
    return [*lines, "", "A guess is right for K of the pairs, for more where texts are equal."]


def _draw(ax: Axes, rows: Rows) -> None:
    held_out = bool(keys_of(rows, f"{TEXT}/"))
    draw_curves(ax, rows, f"{TEXT}/" if held_out else "accuracy/")
    ax.set_title(
        "Held-out pictures: own text among the K nearest"
        if held_out
        else "Pictures nearest to their own text, of the batch"
    )
    ax.set_ylim(-0.02, 1.02)


CHAPTER = Chapter("Contrastive stage", "nats a pair, both directions", _results, _table, _draw)
