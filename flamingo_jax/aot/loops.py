"""How often each computation of a compiled program runs, and how often its loops do.

A loop's body stands once in a program's text, and once in XLA's own cost analysis. How often it
runs is read here from its counter: first value, limit and step. The counter is one of the numbers
that the loop carries, found by the comparison in the loop's condition. The TPU compiler counts in
steps of two where it has unrolled a product that it overlaps with sending, so the step is read too,
and not taken for one.
"""

import math
import re
from typing import NamedTuple

from flamingo_jax.aot.hlo import Computation, Op, Program

_SAME_VALUE = ("copy", "bitcast", "convert", "copy-done", "copy-start")


# What these call is applied to single numbers, and costs nothing by itself.
_ELEMENTWISE_CALLERS = (
    "reduce",
    "reduce-window",
    "scatter",
    "select-and-scatter",
    "sort",
    "map",
    "all-reduce",
    "all-reduce-start",
    "reduce-scatter",
)


class _Counter(NamedTuple):
    place: int  # in what the loop carries
    limit: int


def run_counts(program: Program, begin: str | None = None) -> dict[str, float]:
    """How often a step runs each computation; of a condition's branches, each as if always.

    A step is all of the program, or what the computation `begin` does once.
    """
    total: dict[str, float] = {}

    def visit(name: str, times: float) -> None:
        total[name] = total.get(name, 0.0) + times
        for op in program.computations[name].values():
            loops = trip_count(program.computations, name, op) if op.opcode == "while" else 1
            for called in op.called:
                if op.opcode not in _ELEMENTWISE_CALLERS and called in program.computations:
                    visit(called, times * loops)

    visit(begin or program.entry, 1.0)
    return total


def open_loop(program: Program) -> str:
    """The body of the one loop that runs until it has found what it looks for, as decoding does.

    Raises:
      ValueError: there is none, or there are several.
    """
    found = []
    for name, ops in program.computations.items():
        for op in ops.values():
            if op.opcode == "while":
                try:
                    trip_count(program.computations, name, op)
                except ValueError:
                    found.append(op.attribute("body").lstrip("%"))
    if len(found) != 1:
        raise ValueError(f"loops without a known trip count: {found or 'none'}, want one")
    return found[0]


def trip_count(computations: dict[str, Computation], computation: str, loop: Op) -> int:
    """How often the body of a `while` of `computation` runs.

    Raises:
      ValueError: its condition is no comparison of a counter with a constant, or what the body
        adds to the counter is no constant.
    """
    known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known[1])
    condition, body = (
        computations[loop.attribute(name).lstrip("%")] for name in ("condition", "body")
    )
    counter = _counter(condition)
    step = counter and _step(computations, body, counter.place)
    if not step:
        raise ValueError(f"loop {loop.name} of {computation}: its trip count is not known")
    start = _first(computations[computation], loop, counter.place)
    return math.ceil((counter.limit - start) / step)


def _first(ops: Computation, loop: Op, place: int) -> int:
    """The counter's first value, where it is a constant in sight; else 0."""
    carried = _source(ops, loop.operands[0])
    first = _source(ops, carried.operands[place]) if carried and carried.operands else None
    return int(first.attributes) if first and first.opcode == "constant" else 0


def _counter(condition: Computation) -> _Counter | None:
    """Of the root, `counter < constant`, in the open or fused with one constant as operand."""
    root = next(op for op in condition.values() if op.is_root)
    if root.opcode != "fusion" and "direction=LT" not in root.attributes:
        return None
    sources = [_source(condition, name) for name in root.operands]
    places = [int(op.attribute("index")) for op in sources if op.opcode == "get-tuple-element"]
    limits = [int(op.attributes) for op in sources if op.opcode == "constant"]
    return _Counter(places[0], limits[0]) if len(places) == len(limits) == 1 else None


def _step(computations: dict[str, Computation], body: Computation, place: int) -> int | None:
    """What the body adds to the number at `place`, where that is a constant."""
    root = next(op for op in body.values() if op.is_root)
    new, outer = _source(body, root.operands[place]), None
    part = int(new.attribute("index")) if new and new.opcode == "get-tuple-element" else None
    if part is not None:  # one of what a fusion gives
        new = _source(body, new.operands[0])
    if new and new.opcode == "fusion":
        outer, fused = new, computations[new.called[0]]
        new = next(op for op in fused.values() if op.is_root)
        if new.opcode == "tuple":
            new = _source(fused, new.operands[part])
    if not new or new.opcode != "add":
        return None
    ops = computations[outer.called[0]] if outer else body
    for name in new.operands:
        op = _source(ops, name)
        if outer and op and op.opcode == "parameter":
            op = _source(body, outer.operands[int(op.attributes)])
        if op and op.opcode == "constant":
            return int(op.attributes)
    return None


def _source(ops: Computation, name: str) -> Op | None:
    """The operation that made a value, behind copies of it."""
    op = ops.get(name)
    while op and op.opcode in _SAME_VALUE and op.operands:
        op = ops.get(op.operands[0])
    return op
