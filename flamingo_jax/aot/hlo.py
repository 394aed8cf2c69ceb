"""Reads the text of a compiled program: computations, operations, shapes, how often each runs.

XLA prints an operation as `%name = shape opcode(%operand, ...), attribute=..., ...`. A loop's body
stands once in the text, and once in XLA's own cost analysis; how often it runs is read here from
the loop's condition, a comparison of a counter with a constant.
"""

import dataclasses
import functools
import re

import numpy as np

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]+[0-9]*(?:e[0-9]m[0-9][a-z]*)?)\[([0-9,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"(?:calls|body|to_apply|true_computation|false_computation|called_computation)=%([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
ON_CHIP = re.compile(r"S\([1-9]")  # memory spaces but 0 are on the chip


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a shape: its dims, its bytes, and whether it lies in HBM."""

    dtype: str
    dims: tuple[int, ...]
    in_hbm: bool

    @property
    def bytes(self) -> float:
        return np.prod(self.dims, dtype=float) * bits(self.dtype) / 8


def bits(dtype: str) -> int:
    """Of one number: the digits of the name, `bf16` 16, `f8e4m3fn` 8."""
    found = re.match(r"[a-z]+([0-9]+)", dtype)
    return _BITS[dtype] if dtype in _BITS else int(found[1])


@dataclasses.dataclass(frozen=True)
class Op:
    """One operation of a computation."""

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @functools.cached_property
    def arrays(self) -> tuple[Array, ...]:
        """What it returns; several arrays where it is a tuple."""
        return tuple(
            Array(
                dtype,
                tuple(int(n) for n in dims.split(",") if n),
                not (layout and ON_CHIP.search(layout)),
            )
            for dtype, dims, layout in _ARRAY.findall(self.shape)
        )

    @property
    def called(self) -> list[str]:
        """Computations it runs; of a loop, the body."""
        branches = _BRANCHES.search(self.attributes)
        listed = _NAME.findall(branches[1]) if branches else []
        return _CALLED.findall(self.attributes) + listed

    def attribute(self, name: str) -> str | None:
        """The value of `name=` up to the next comma outside of brackets."""
        start = re.search(rf"(?:^|[ ,]){name}=", self.attributes)
        if start is None:
            return None
        return _until_comma(self.attributes[start.end() :])


def _until_comma(text: str) -> str:
    depth = 0
    for i, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            return text[:i]
    return text


Computation = dict[str, Op]


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name, and which one is entered first."""

    computations: dict[str, Computation]
    entry: str

    @functools.cached_property
    def counts(self) -> dict[str, float]:
        """How often a step runs each computation; of a condition's branches, each as if always."""
        total: dict[str, float] = {}

        def visit(name: str, times: float) -> None:
            total[name] = total.get(name, 0.0) + times
            for op in self.computations[name].values():
                loops = self.trip_count(name, op) if op.opcode == "while" else 1
                for called in op.called:
                    if op.opcode not in _ELEMENTWISE_CALLERS and called in self.computations:
                        visit(called, times * loops)

        visit(self.entry, 1.0)
        return total

    def trip_count(self, computation: str, loop: Op) -> int:
        """How often a loop's body runs.

        Raises:
          ValueError: its condition is no comparison of a counter with a constant.
        """
        known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        condition = self.computations[loop.attribute("condition").lstrip("%")]
        limits = [
            int(op.attributes)
            for op in condition.values()
            if op.opcode == "constant" and op.shape.startswith("s32[]")
        ]
        root = next(op for op in condition.values() if op.is_root)
        if len(limits) != 1 or (root.opcode != "fusion" and "direction=LT" not in root.attributes):
            raise ValueError(f"loop {loop.name} of {computation}: its trip count is not known")
        return limits[0] - self._start(computation, loop)

    def _start(self, computation: str, loop: Op) -> int:
        """The counter's first value, where it is a constant in sight; else 0."""
        ops = self.computations[computation]
        init = ops.get(loop.operands[0])
        first = ops.get(init.operands[0]) if init and init.operands else None
        while first and first.opcode in ("copy", "bitcast") and first.operands:
            first = ops.get(first.operands[0])
        if first and first.opcode == "constant" and first.attributes.lstrip("-").isdigit():
            return int(first.attributes)
        return 0


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


def parse(text: str) -> Program:
    """The program in the text of `compiled.as_text()`."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if not line.startswith(" "):
            header = re.match(r"(ENTRY )?%([\w.\-]+) \(", line)
            if header and line.rstrip().endswith("{"):
                current = computations.setdefault(header[2], {})
                entry = header[2] if header[1] else entry
            continue
        op = _op(line)
        if op is not None and current is not None:
            current[op.name] = op
    return Program(computations, entry)


def _op(line: str) -> Op | None:
    head = re.match(r"\s+(ROOT )?%([\w.\-]+) = ", line)
    if head is None:
        return None
    rest = line[head.end() :]
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    end = _closing("(" + rest) - 1
    inside, attributes = rest[: end - 1], rest[end:].lstrip(", ")
    operands = tuple(_NAME.findall(inside))
    if opcode in ("constant", "parameter"):
        operands, attributes = (), inside
    return Op(head[2], opcode, shape, operands, attributes, bool(head[1]))


def _closing(text: str) -> int:
    """Index behind the bracket that closes the one at 0."""
    depth = 0
    for i, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return i + 1
    return len(text)
