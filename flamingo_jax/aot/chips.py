"""Published rates of TPU chips, and slices of them by name.

Rates are the makers' (cloud.google.com/tpu/docs, read on 2026-11-21): dense bfloat16 products, HBM,
the chip-to-chip network (per link and direction: the published figure for a chip, over its ports
and the two directions) and the data-centre network (a host's cards, over its chips).

So are the slices that there are, from the tables of configurations in the same place (docs/v4,
docs/v5e, docs/v5p, docs/v6e). A v5p pod has 8,960 chips, of which one slice can have 16x16x24.
"""

import dataclasses
import difflib
import importlib.util
import itertools
import math
import os
import re
from typing import Any

GIB = 2**30
INSTALL = "pip install 'flamingo_jax[tpu]'"
Shape = tuple[int, ...]


def _rectangles(*rising: Shape) -> frozenset[Shape]:
    """Each of them, either way round."""
    return frozenset(shape for sides in rising for shape in itertools.permutations(sides))


def _cubes(*largest: int) -> frozenset[Shape]:
    """Slices of a 3D torus: parts of one cube of 4x4x4, and whole cubes up to the largest slice."""
    sides = range(4, max(largest) + 1, 4)
    whole = {
        shape
        for shape in itertools.product(sides, repeat=len(largest))
        if all(side <= most for side, most in zip(sorted(shape), sorted(largest), strict=True))
    }
    return whole | {(2, 2, 1)} | _rectangles((2, 2, 2), (2, 2, 4), (2, 4, 4))


_POD_OF_256 = _rectangles((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip; rates in bytes or operations a second, one direction."""

    name: str
    flops: float
    hbm_bytes: float
    hbm_rate: float
    link_rate: float
    slice_network_rate: float  # between slices
    shapes: frozenset[Shape]  # of its slices
    whole_axis: int  # an axis that is a multiple of this many chips closes to a ring
    compiler_options: tuple[tuple[str, Any], ...] = ()  # of the topology

    @property
    def dims(self) -> int:
        """Axes of the torus."""
        return len(next(iter(self.shapes)))


# Two cores that run as one device; without it the compiler lists them apart.
_MEGACORE = (("chip_config_name", "megacore"),)
CHIPS = {
    "v4": Chip("v4", 275e12, 32 * GIB, 1.228e12, 50e9, 6.25e9, _cubes(16, 16, 16), 4, _MEGACORE),
    "v5e": Chip("v5e", 197e12, 16 * GIB, 0.819e12, 50e9, 3.125e9, _POD_OF_256, 16),
    "v5p": Chip("v5p", 459e12, 95 * GIB, 2.765e12, 100e9, 6.25e9, _cubes(16, 16, 24), 4),
    "v6e": Chip("v6e", 918e12, 32 * GIB, 1.640e12, 100e9, 12.5e9, _POD_OF_256, 16),
}


class TopologyError(ValueError):
    """A slice that does not exist, or no compiler for it; the message says what to use."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """`num_slices` slices of one chip, such as `v5p:8x8x8`."""

    chip: Chip
    bounds: Shape
    num_slices: int = 1

    @property
    def name(self) -> str:
        return _name(self.chip, self.bounds)

    @property
    def num_chips(self) -> int:
        return self.num_slices * math.prod(self.bounds)

    def devices(self) -> list[Any]:
        """Devices of the slice for the compiler alone: nothing runs on them.

        Raises:
          TopologyError: libtpu is not installed, or does not know this slice.
        """
        if not _has_compiler():
            raise TopologyError(f"the TPU compiler is not installed: {INSTALL}")
        from jax.experimental import topologies

        host = (*(min(2, side) for side in self.bounds[:2]), 1)
        try:
            found = topologies.get_topology_desc(
                self.name,
                platform="tpu",
                chips_per_host_bounds=host,
                num_slices=self.num_slices,
                **dict(self.chip.compiler_options),
            )
        except Exception as error:  # libtpu's are of many kinds
            message = str(error).splitlines()[0]
            raise TopologyError(f"topology {self.name}: libtpu says {message}") from error
        return list(found.devices)


def parse(name: str, num_slices: int = 1) -> Topology:
    """`CHIP:AxBxC` (v4, v5p) or `CHIP:AxB` (v5e, v6e); TopologyError for any other name."""
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    if match is None:
        raise TopologyError(f"topology {name!r}: write CHIP:SHAPE, such as v5p:8x8x8 or v6e:16x16")
    if match[1] not in CHIPS:
        near = difflib.get_close_matches(match[1], CHIPS, 1, cutoff=0)[0]
        raise TopologyError(
            f"topology {name!r}: no chip {match[1]}, use one of {[*CHIPS]} ({near})"
        )
    chip, bounds = CHIPS[match[1]], tuple(map(int, match[2].split("x")))
    if bounds not in chip.shapes:
        largest = max(chip.shapes, key=math.prod)
        raise TopologyError(
            f"topology {name!r}: there is no such slice of {chip.name}, whose largest is "
            f"{_name(chip, tuple(sorted(largest)))}: use {_name(chip, _nearest(chip, bounds))}"
        )
    return Topology(chip, bounds, num_slices)


def _name(chip: Chip, bounds: Shape) -> str:
    return f"{chip.name}:{'x'.join(map(str, bounds))}"


def _nearest(chip: Chip, bounds: Shape) -> Shape:
    """The slice of about as many chips; among those of the same number, of about the same sides."""
    wanted = [max(1, side) for side in bounds]

    def distance(shape: Shape) -> tuple[float, float, Shape]:
        sides = sum(abs(math.log2(a / b)) for a, b in zip(shape, wanted, strict=False))
        return abs(math.log2(math.prod(shape) / math.prod(wanted))), sides, shape

    return min(chip.shapes, key=distance)


def _has_compiler() -> bool:
    """Whether libtpu is where JAX looks for it."""
    named = os.environ.get("TPU_LIBRARY_PATH", "")
    return os.path.isfile(named) or importlib.util.find_spec("libtpu") is not None
