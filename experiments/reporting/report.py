"""Writes what a run did into its workdir: report.json, report.md and report.png."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from data_pipelines.whole_files import open_whole, write_json, write_whole
from experiments.reporting.curves import keys_of
from experiments.reporting.figure_style import figure_pixels
from experiments.reporting.report_data import FewShotScore, Report
from experiments.reporting.report_figure import draw_report
from flamingo_jax.eval.bootstrap import Interval
from flamingo_jax.train import metrics


def write_report(workdir: Path, report: Report) -> None:
    """Writes the three files, each whole or not at all; curves come from metrics.jsonl."""
    workdir = Path(workdir)
    file = workdir / metrics.FILE_NAME
    rows = metrics.read_rows(file) if file.exists() else []
    values = report.to_json() | {"steps": rows[-1]["step"] if rows else 0}
    values["goodput"] = goodput(report, rows)
    last = _last_validation(rows).items()
    values["validation"] = {name: row[f"validation/{name}"] for name, row in last}
    write_json(workdir / "report.json", values)
    pixels = figure_pixels(draw_report(report, rows))
    with open_whole(workdir / "report.png") as file:
        Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    write_whole(workdir / "report.md", render_markdown(report, rows).encode())


def goodput(report: Report, rows: metrics.Rows) -> float:
    """The share of the run's wall time that went into the steps of these rows, [0, 1].

    The rest is starting, compiling, evaluating, and steps that were lost and done again.
    """
    return metrics.stepping_s(rows) / report.wall_s


def render_markdown(report: Report, rows: metrics.Rows) -> str:
    """The report as text: the same numbers as report.json, in tables."""
    lines = [
        f"# Flamingo, {report.variant}",
        "",
        "![curves, scores and samples](report.png)",
        "",
        "| | |",
        "|---|---|",
        f"| steps | {rows[-1]['step'] if rows else 0} |",
        f"| wall time | {report.wall_s / 60:.1f} minutes |",
        f"| of it in training steps (goodput) | {_percent(goodput(report, rows))} |",
        f"| peak memory | {report.peak_rss_gib:.2f} GiB |",
    ]
    if rows and rows[-1].get("loss") is not None:
        lines.append(f"| last training loss | {_training_loss(rows[-1])} |")
    lines += _validation_lines(rows)
    if (heldout := report.heldout) is not None:
        share, difference = heldout.rank1, heldout.nll_difference
        lines += [
            f"| held-out loss, right picture | {heldout.nll_right:.3f} nats a token |",
            f"| held-out loss, another picture | {heldout.nll_shuffled:.3f} nats a token |",
            f"| difference | {difference.mean:.3f} ({difference.low:.3f} to "
            f"{difference.high:.3f}) nats a token |",
            f"| right name first of {heldout.num_candidates} | {_share(share)}; "
            f"chance {_percent(1 / heldout.num_candidates)} |",
            f"| the same by likelihood a token | {_share(heldout.rank1_per_token)} |",
            f"| mean reciprocal rank | {heldout.mean_reciprocal_rank:.3f} |",
            "",
            "In brackets are 95% intervals over queries: Wilson's of shares, a paired bootstrap "
            "one of the difference.",
        ]
    if report.few_shot:
        lines += [
            "",
            "## Few-shot captioning and ranking",
            "",
            "CIDEr-D x 100 with bootstrap 95% intervals, captions tokenised by",
            "`flamingo_jax.eval.caption_tokenizer`. 0 shots is two texts without their pictures. "
            "Names are ranked by log-likelihood, as above but after the examples, with Wilson's "
            "95% intervals.",
            "",
            "| shots | examples | CIDEr | interval | queries | right name first |",
            "|---|---|---|---|---|---|",
            *(_few_shot_line(s) for s in sorted(report.few_shot, key=lambda s: s.shots)),
        ]
    if report.data:
        lines += [
            "",
            "## Data",
            "",
            "| dataset | examples | skipped | why |",
            "|---|---|---|---|",
        ]
        for name, count in report.data.items():
            why = _cell(_reasons(count.reasons))
            lines.append(f"| {_cell(name)} | {count.examples} | {count.skipped} | {why} |")
    if report.heldout_skipped:
        lines += [
            "",
            "Held-out pairs and examples that could not be used: "
            f"{_reasons(report.heldout_skipped)}.",
        ]
    if report.samples:
        lines += ["", "## Samples", "", "| written | true | right |", "|---|---|---|"]
        for s in report.samples:
            mark = "yes" if s.right else ""
            lines.append(f"| {_cell(s.written)} | {_cell(s.truth[0])} | {mark} |")
    if report.notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in report.notes)]
    return "\n".join(lines) + "\n"


def _training_loss(row: metrics.Row) -> str:
    """Of each dataset by name; `loss` itself is their weighted sum, and nats of no token."""
    each = {key.removeprefix("loss/"): row[key] for key in keys_of([row], "loss/")}
    losses = ", ".join(f"{_cell(name)} {loss:.3f}" for name, loss in each.items())
    return f"{losses or format(row['loss'], '.3f')} nats a token"


def _last_validation(rows: metrics.Rows) -> dict[str, Mapping[str, Any]]:
    """Of each dataset the row with its last values."""
    prefix = "validation/"
    return {
        key.removeprefix(prefix): row
        for row in rows
        for key in row
        if key.startswith(prefix) and row[key] is not None
    }


def _validation_lines(rows: metrics.Rows) -> list[str]:
    """The last values of each dataset; texts have no pictures to exchange."""
    lines = []
    for name, row in _last_validation(rows).items():
        other = row.get(f"validation_shuffled/{name}")
        beside = "" if other is None else f"; {other:.3f} with another row's pictures"
        lines.append(
            f"| validation of {_cell(name)}, step {row['step']} | "
            f"{row[f'validation/{name}']:.3f} nats a token{beside} |"
        )
    return lines


def _few_shot_line(score: FewShotScore) -> str:
    c = score.cider
    return (
        f"| {score.shots} | {score.retrieval} | {100 * c.mean:.1f} | "
        f"{100 * c.low:.1f} to {100 * c.high:.1f} | {c.num_queries} | "
        f"{'' if score.rank1 is None else _share(score.rank1)} |"
    )


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in sorted(counts.items()))


def _share(found: Interval) -> str:
    return (
        f"{_percent(found.mean)} ({_percent(found.low)} to {_percent(found.high)}) of "
        f"{found.num_queries} queries"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
