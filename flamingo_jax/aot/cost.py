"""What a compiled program does in one step: operations, HBM traffic, and bytes on the networks.

Loops count as often as they run. Of a condition's branches all count, which is the dearer one where
the others do nothing (the loss skips chunks without a target). HBM traffic is what each scheduled
operation reads and writes there; what the compiler keeps on the chip (memory spaces but 0) is free,
and of an array that is only sliced or updated in place the slice counts.
"""

import dataclasses
import re

import numpy as np

from flamingo_jax.aot import hbm, loops
from flamingo_jax.aot.hlo import Computation, Op, Program

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation, and how often a step runs it."""

    kind: str
    times: float
    payload: float  # bytes of the whole array a chip ends or starts with
    group: tuple[int, ...]  # devices that exchange, by place in the mesh; of a permute, a pair
    source: str  # the JAX operation it serves

    @property
    def sent(self) -> float:
        """Bytes that one chip sends each time, by the ring algorithms."""
        n = max(len(self.group), 1)
        share = (n - 1) / n
        return self.payload * {"all-reduce": 2 * share, "collective-permute": 1.0}.get(
            self.kind, share
        )


@dataclasses.dataclass(frozen=True)
class Cost:
    """One chip, one step."""

    flops: float
    hbm_bytes: float
    collectives: tuple[Collective, ...]
    kernels: dict[str, float]  # custom calls by name, and how often they run: not in `flops`


def of(program: Program, begin: str | None = None) -> Cost:
    """The cost of a parsed program, or of its computation `begin` alone, run once."""
    flops = hbm_bytes = 0.0
    collectives: list[Collective] = []
    kernels: dict[str, float] = {}
    inside = _fused(program)
    for name, times in loops.run_counts(program, begin).items():
        ops = program.computations[name]
        for op in ops.values():
            if op.opcode in ("dot", "convolution"):
                flops += times * _products(op, ops)
            if found := _collective(op, ops, times):
                if found.kind == "all-reduce" and name in inside and _is_sliced(op.name, ops):
                    found = dataclasses.replace(found, kind="reduce-scatter")
                collectives.append(found)
            if op.opcode == "custom-call":
                target = (op.attribute("custom_call_target") or "").strip('"')
                kernels[target] = kernels.get(target, 0.0) + times
            if name not in inside:
                hbm_bytes += times * hbm.traffic(op, ops, program)
    return Cost(flops, hbm_bytes, tuple(collectives), kernels)


def _fused(program: Program) -> set[str]:
    """Computations that are part of one operation, whose arrays inside are in no memory."""
    return {
        called
        for ops in program.computations.values()
        for op in ops.values()
        if op.opcode in ("fusion", "async-start", "custom-call")
        for called in op.called
    } | {
        inner
        for ops in program.computations.values()
        for op in ops.values()
        if op.opcode in ("reduce", "all-reduce", "reduce-scatter", "scatter", "sort", "map")
        for inner in op.called
    }


def _products(op: Op, ops: Computation) -> float:
    out = op.arrays[0].dims
    left, right = (ops[name].arrays[0].dims for name in op.operands[:2])
    if op.opcode == "dot":
        contracted = _numbers(op.attribute("lhs_contracting_dims"))
        return 2.0 * np.prod(out, dtype=float) * np.prod([left[d] for d in contracted], dtype=float)
    labels = re.match(r"(\w+)_(\w+)->(\w+)", op.attribute("dim_labels"))
    from_left, from_right, to = labels.groups()
    window = _window(op.attribute("window") or "", sum(c.isdigit() for c in to))
    total = 2.0 * out[to.index("b")] * out[to.index("f")] * right[from_right.index("i")]
    for i, (size, stride, low, dilate, kernel_dilate) in enumerate(window):
        n, o = left[from_left.index(str(i))], out[to.index(str(i))]
        at = np.arange(o)[:, None] * stride + np.arange(size) * kernel_dilate - low
        total *= ((at >= 0) & (at <= (n - 1) * dilate) & (at % dilate == 0)).sum()
    return total


def _window(text: str, dims: int) -> list[tuple[int, int, int, int, int]]:
    """(size, stride, low padding, dilation of the input, of the kernel) of each spatial dim."""

    def values(name: str, default: str) -> list[str]:
        found = re.search(rf"\b{name}=([\d_x\-]+)", text)
        return found[1].split("x") if found else [default] * dims

    columns = [values("size", "1"), values("stride", "1")]
    columns.append([v.split("_")[0] for v in values("pad", "0_0")])
    columns += [values("lhs_dilate", "1"), values("rhs_dilate", "1")]
    return [tuple(map(int, row)) for row in zip(*columns, strict=True)]


def _numbers(text: str | None) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text or "")]


def _collective(op: Op, ops: Computation, times: float) -> Collective | None:
    kind = op.opcode.removesuffix("-start")
    if kind not in COLLECTIVES:
        return None
    operands = [ops[name] for name in op.operands if name in ops]
    read = sum(a.bytes for o in operands for a in o.arrays)
    if kind == "collective-permute":
        pairs = re.search(r"\{(\d+),(\d+)\}", op.attribute("source_target_pairs") or "")
        group = tuple(map(int, pairs.groups())) if pairs else ()
        payload = sum(a.bytes for a in operands[0].arrays) if operands else 0.0
    else:
        mesh = re.search(r"replica_groups=(mesh\[.*?\{[^}]*\})", op.attributes)
        group = _first_group(mesh[1] if mesh else op.attribute("replica_groups") or "")
        payload = read * len(group) if kind == "all-gather" else read
    source = re.search(r'op_name="([^"]*)"', op.attributes)
    return Collective(kind, times, payload, group, source[1] if source else "")


def _is_sliced(name: str, ops: Computation) -> bool:
    """Whether only slices of an operation's result are used.

    In one fusion with its slices, an all-reduce is how the TPU compiler writes a reduce-scatter.
    """
    users = [user for user in ops.values() if name in user.operands]
    return bool(users) and all(
        user.opcode == "dynamic-slice"
        or (user.opcode in ("get-tuple-element", "bitcast") and _is_sliced(user.name, ops))
        for user in users
    )


def _first_group(text: str) -> tuple[int, ...]:
    """Of `{{0,1},{2,3}}`, `[groups,size]<=[dims]T(order)`, `mesh['x'=2,'y'=4] {'y'}`; {} is ().

    Raises:
      ValueError: another notation, which must not be taken for nobody.
    """
    if text in ("", "{}"):
        return ()
    if iota := re.fullmatch(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        shape, dims, order = map(_numbers, iota.groups())
        return tuple(_iota(dims, order).reshape(shape)[0].tolist())
    if mesh := re.fullmatch(_MESH_GROUPS, text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        shape, axes = [int(size) for size in sizes.values()], re.findall(r"'(\w+)'", mesh[4])
        ids = _iota(_numbers(mesh[2]) or shape, _numbers(mesh[3])).reshape(shape)
        return tuple(ids[tuple(slice(None) if axis in axes else 0 for axis in sizes)].ravel())
    if listed := re.match(r"\{\{([\d,]+)\}", text):
        return tuple(_numbers(listed[1]))
    raise ValueError(f"replica_groups={text}: this notation of groups of devices is not known")


_MESH_GROUPS = re.compile(
    r"mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{((?:'\w+',?)+)\}"
)


def _iota(dims: list[int], order: list[int]) -> np.ndarray:
    ids = np.arange(np.prod(dims)).reshape(dims)
    return ids.transpose(order) if order else ids
