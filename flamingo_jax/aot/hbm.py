"""Bytes that an operation of a compiled program reads from HBM and writes to it.

Fusions stand in fusions, and what is inside touches no memory: an operand that is only sliced
counts as its slices, one that is updated in place as the update.
"""

from collections.abc import Iterator

from flamingo_jax.aot.hlo import Computation, Op, Program

_FREE = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
    "partition-id",
    "replica-id",
    "optimization-barrier",
    "iota",
    "domain",
)


def traffic(op: Op, ops: Computation, program: Program) -> float:
    """Bytes that one operation reads from HBM and writes to it."""
    if op.opcode in _FREE or op.opcode.endswith(("-done", "-update")):
        return 0.0
    if op.opcode == "dynamic-slice":
        return 2 * _hbm(op)
    if op.opcode == "dynamic-update-slice":
        return 2 * _hbm(ops[op.operands[1]])
    if op.opcode == "copy-start":  # (target, source, context)
        return _hbm(ops[op.operands[0]]) + sum(a.bytes for a in op.arrays[:1] if a.in_hbm)
    inner = program.computations[op.called[0]] if op.opcode == "fusion" else None
    read = 0.0
    for i, name in enumerate(op.operands):
        if name in ops:
            whole = _hbm(ops[name])
            read += _read_in_fusion(program, inner, i, whole) if inner and whole else whole
    written = _written_by_fusion(inner, op) if inner else _hbm(op)
    return read + written


def _hbm(op: Op) -> float:
    return sum(a.bytes for a in op.arrays if a.in_hbm)


def _read_in_fusion(program: Program, inner: Computation, index: int, whole: float) -> float:
    """Of an operand that a fusion only slices, the slices; of one it updates in place, nothing.

    Fusions stand in fusions: that of a product in that of the slice of stacked weights it takes.
    """
    parameter = next(
        (o for o in inner.values() if o.opcode == "parameter" and o.attributes == str(index)), None
    )
    if parameter is None:
        return whole
    read = 0.0
    for user in _users(inner, parameter.name):
        if user.opcode in ("dynamic-slice", "gather"):
            read += sum(a.bytes for a in user.arrays)
        elif user.opcode == "fusion":
            place = user.operands.index(parameter.name) if parameter.name in user.operands else None
            if place is None:  # through a bitcast
                return whole
            called = program.computations[user.called[0]]
            read += _read_in_fusion(program, called, place, whole)
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != parameter.name:
            return whole
    return min(whole, read)


def _users(inner: Computation, name: str) -> Iterator[Op]:
    """Operations that read `name`, through bitcasts."""
    for op in inner.values():
        if name in op.operands:
            if op.opcode == "bitcast" and not op.is_root:
                yield from _users(inner, op.name)
            else:
                yield op


def _written_by_fusion(inner: Computation, op: Op) -> float:
    """What a fusion writes; in place, only the update."""
    root = next(o for o in inner.values() if o.is_root)
    results = [inner[n] for n in root.operands] if root.opcode == "tuple" else [root]
    if len(results) != len(op.arrays):
        return _hbm(op)
    total = 0.0
    for result, array in zip(results, op.arrays, strict=True):
        while result.opcode == "bitcast" and result.operands[0] in inner:
            result = inner[result.operands[0]]
        if result.opcode == "dynamic-update-slice":
            update = inner[result.operands[1]]
            total += sum(a.bytes for a in update.arrays) if array.in_hbm else 0.0
        elif array.in_hbm:
            total += array.bytes
    return total
