"""What GKE calls TPU slices, and how many hosts they have.

Labels and machines are those of GKE's documentation (kubernetes-engine/docs/concepts/plan-tpus);
the shapes are those of `flamingo_jax/aot/chips.py`, which a launcher does not import: a test holds
one against the other. GKE names a slice's sides from the smallest on, but for 2x2x1. A host has
four chips, or a slice's only one; eight chips of v5e and v6e also come as one host
(`ct5lp-hightpu-8t`, `ct6e-standard-8t`).
"""

import dataclasses
import math
import re

CHIPS_PER_HOST = 4
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_PARTS_OF_A_CUBE = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")
_ONE_LARGE_HOST = "2x4", 8


@dataclasses.dataclass(frozen=True)
class Generation:
    """A generation of chips: its label's value, and its largest slice."""

    label: str
    largest: tuple[int, ...]


GENERATIONS = {
    "v4": Generation("tpu-v4-podslice", (16, 16, 16)),
    "v5e": Generation("tpu-v5-lite-podslice", (16, 16)),
    "v5p": Generation("tpu-v5p-slice", (16, 16, 24)),
    "v6e": Generation("tpu-v6e-slice", (16, 16)),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """One slice as GKE schedules it."""

    label: str
    topology: str
    num_hosts: int
    chips_per_host: int


def parse(name: str, chips_per_host: int | None = None) -> Slice:
    """A slice by `GENERATION:TOPOLOGY`, such as v5p:4x4x4; ValueError says what is wrong."""
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", name)
    if match is None:
        raise ValueError("write GENERATION:TOPOLOGY, such as v5p:4x4x4 or v6e:16x16")
    if match[1] not in GENERATIONS:
        raise ValueError(f"unknown generation, use one of {[*GENERATIONS]}")
    generation, topology = GENERATIONS[match[1]], match[2]
    if not _exists(generation, topology):
        raise ValueError(f"there is no such slice, {_which(generation)}")
    num_chips = math.prod(map(int, topology.split("x")))
    usual = min(CHIPS_PER_HOST, num_chips)
    per_host = chips_per_host or usual
    large = len(generation.largest) == 2 and (topology, per_host) == _ONE_LARGE_HOST
    if per_host != usual and not large:
        raise ValueError(f"its hosts have {usual} chips each, not {per_host}")
    return Slice(generation.label, topology, num_chips // per_host, per_host)


def _exists(generation: Generation, topology: str) -> bool:
    if len(generation.largest) == 2:
        return topology in _FLAT
    sides = tuple(map(int, topology.split("x")))
    cubes = len(sides) == 3 and all(
        side and side % 4 == 0 and side <= most
        for side, most in zip(sides, generation.largest, strict=True)
    )
    return (cubes and list(sides) == sorted(sides)) or topology in _PARTS_OF_A_CUBE


def _which(generation: Generation) -> str:
    largest = "x".join(map(str, generation.largest))
    if len(generation.largest) == 2:
        return f"use one of {', '.join(_FLAT)}"
    return f"use {', '.join(_PARTS_OF_A_CUBE)}, or rising multiples of 4 up to {largest}"
