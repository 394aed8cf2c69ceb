"""Two workers' train steps, taken in turns in one run, and the table of how long they took."""

import datetime
import os
import pathlib
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.exchange import Worker

Row = Mapping[str, Any]
Pair = tuple[Row, Row]  # ours, theirs

WARM_UP_STEPS = 3  # the first compiles, and the learning rate of the first is 0


def take(ours: Worker, theirs: Worker, timed_steps: int) -> tuple[Pair, list[Pair]]:
    """(facts, steps) of both, the warm-up steps first; ends the workers."""
    facts = ours.ask(), theirs.ask()
    steps = [(ours.ask(), theirs.ask()) for _ in range(WARM_UP_STEPS + timed_steps)]
    ours.close()
    theirs.close()
    return facts, steps


def report(peer: str, facts: Pair, steps: Sequence[Pair], step_flops: float, note: str) -> None:
    """Prints the numbers of one run, one line each.

    A worker's facts have `versions`, `trained` and `language_model`; its steps have what
    `exchange.timed` gives, `loss` and `grad_norm`.
    """
    warm, timed = steps[:WARM_UP_STEPS], steps[WARM_UP_STEPS:]
    versions = facts[0]["versions"] | facts[1]["versions"]
    print(f"{datetime.date.today()}  {_cpu()}, {len(os.sched_getaffinity(0))} cores")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"{note}; a step: {step_flops / 1e9:.1f} GFLOP, counted for both alike")
    print(f"{'':24}{'flamingo_jax':>14}{peer:>14}")

    def line(name, values, form):
        print(f"{name:24}" + "".join(f"{value:14{form}}" for value in values))

    seconds, cpu = (
        [[step[side][clock] for step in timed] for side in (0, 1)]
        for clock in ("seconds", "cpu_seconds")
    )
    medians, cpu_medians = ([statistics.median(s) for s in x] for x in (seconds, cpu))
    line("trained parameters", [f["trained"] for f in facts], ",")
    line("language model", [f["language_model"] for f in facts], ",")
    line("first step, s", [r["seconds"] for r in warm[0]], ".2f")
    line("median of a step, s", medians, ".3f")
    line("fastest step, s", [min(s) for s in seconds], ".3f")
    line("slowest step, s", [max(s) for s in seconds], ".3f")
    line("median, CPU seconds", cpu_medians, ".3f")
    line("GFLOP/s at the median", [step_flops / m / 1e9 for m in medians], ".0f")
    for name in ("loss", "grad_norm"):
        line(f"{name}, first step", [r[name] for r in steps[0]], ".5f")
        line(f"{name}, last step", [r[name] for r in steps[-1]], ".5f")
        apart = max(abs(a[name] / b[name] - 1) for a, b in steps)
        print(f"{name}, farthest apart in {len(steps)} steps: {apart:.1e} of it")
    ratios = [a / b for a, b in zip(*seconds, strict=True)]
    print(
        f"flamingo_jax / {peer}: {medians[0] / medians[1]:.3f} of the medians, "
        f"{min(seconds[0]) / min(seconds[1]):.3f} of the fastest, "
        f"{cpu_medians[0] / cpu_medians[1]:.3f} of the CPU's; "
        f"{min(ratios):.3f} to {max(ratios):.3f} over {len(ratios)} pairs of steps"
    )


def _cpu() -> str:
    """The processor's name, where the system tells it."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
