"""A summary of `experiments.summarize` as tables for a terminal."""

from collections.abc import Sequence
from typing import Any

Row = Sequence[str]


def render(summary: dict[str, Any]) -> str:
    """Three tables: parameters, bytes a device, FLOPs a step."""
    mesh = " ".join(f"{axis}={size}" for axis, size in summary["mesh"].items())
    devices = "1 device" if summary["num_devices"] == 1 else f"{summary['num_devices']} devices"
    return "\n\n".join(
        (
            f"{summary['variant']} on {devices} ({mesh})",
            _parameters(summary["parameters"]),
            _bytes(summary["bytes_per_device"]),
            _flops(summary["flops_per_step"]),
            _datasets(summary["flops_per_step"]),
        )
    )


def _parameters(parts: dict[str, Any]) -> str:
    def row(name, members):
        count = sum(part["count"] for part in members)
        size = sum(part["bytes_per_device"] for part in members)
        return [name, number(count, "B"), *about(members), gib(size)]

    def about(members):
        kinds = {("trained" if p["trained"] else "frozen", p["dtype"]) for p in members}
        return next(iter(kinds)) if len(kinds) == 1 else ("", "")

    rows = [row(name, [part]) for name, part in parts.items()]
    frozen = [part for part in parts.values() if not part["trained"]]
    trained = [part for part in parts.values() if part["trained"]]
    totals = [row("all frozen", frozen), row("all trained", trained)]
    totals.append(row("all", frozen + trained))
    return table(["component", "parameters", "", "kept as", "GiB a device"], rows, totals)


def _bytes(sizes: dict[str, int]) -> str:
    rows = [[name.replace("_", " "), gib(size)] for name, size in sizes.items()]
    return table(["kept on a device", "GiB"], rows, [["all", gib(sum(sizes.values()))]])


def _flops(costs: dict[str, Any]) -> str:
    passes = ("forward", "activation_gradients", "weight_gradients", "total")
    parts, total = costs["components"], costs["total"]

    def row(name, values):
        return [name, *(number(v) for v in values), f"{values[-1] / total:.1%}"]

    rows = [row(name, [part[p] for p in passes]) for name, part in parts.items()]
    sums = row("all", [sum(part[p] for part in parts.values()) for p in passes])
    header = ["FLOPs a step", "forward", "activations' grad.", "weights' grad.", "all", "share"]
    return table(header, rows, [sums])


def _datasets(costs: dict[str, Any]) -> str:
    rows = [
        [name, *(f"{d[key]:,}" for key in ("sequences", "tokens", "frames")), number(d["total"])]
        for name, d in costs["datasets"].items()
    ]
    visited = "every step" if costs["accumulate"] else "in turn"
    if costs["join_datasets"]:
        visited += ", side by side"
    if costs["microbatches"] > 1:
        visited += f", in {costs['microbatches']} parts"
    frames = "frames" if costs["encode_media"] else "frames, encoded before"
    return table([f"visited {visited}", "sequences", "tokens", frames, "FLOPs"], rows)


def table(header: Row, rows: Sequence[Row], totals: Sequence[Row] = ()) -> str:
    """Columns aligned: the first to the left, numbers to the right; rules around the rows."""
    everything = [header, *rows, *totals]
    widths = [max(len(row[i]) for row in everything) for i in range(len(header))]

    def line(row):
        rest = zip(row[1:], widths[1:], strict=True)
        return "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in rest)]).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [line(header), rule, *map(line, rows)]
    return "\n".join([*lines, *([rule] if totals else []), *map(line, totals)])


def number(value: float, billion: str = "G") -> str:
    """Four digits and a power of a thousand: 1.374 G."""
    units = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, billion), (1e6, "M"), (1e3, "k"))
    for size, unit in units:
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:.4g}"


def gib(size: int) -> str:
    """Bytes in GiB."""
    return f"{size / 2**30:.3f}"
