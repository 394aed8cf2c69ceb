"""Reads the text of a compiled program: computations, operations, shapes.

XLA prints an operation as `%name = shape opcode(%operand, ...), attribute=..., ...`.
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
