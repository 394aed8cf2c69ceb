"""Published rates of TPU chips, and slices of them by name.

Rates are the makers' (cloud.google.com/tpu/docs, read on 2026-11-21): dense bfloat16 products, HBM,
the chip-to-chip network (per link and direction: the published figure for a chip, over its ports
and the two directions) and the data-centre network (a host's cards, over its chips).
"""

import dataclasses
import difflib
import re
from typing import Any

import numpy as np

GIB = 2**30
INSTALL = 'pip install "jax[tpu]==0.10.2"'


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip; rates in bytes or operations a second, one direction."""

    name: str
    flops: float
    hbm_bytes: float
    hbm_rate: float
    link_rate: float
    slice_network_rate: float  # between slices
    dims: int  # of the torus
    whole_axis: int  # an axis that is a multiple of this many chips closes to a ring
    compiler_options: tuple[tuple[str, Any], ...] = ()  # of the topology

    @property
    def max_link_rate(self) -> float:
        """All links of a chip, one direction."""
        return 2 * self.dims * self.link_rate


_HOST = ("chips_per_host_bounds", (2, 2, 1))
CHIPS = {
    # Two cores that run as one device; without megacore the compiler lists them apart.
    "v4": Chip(
        "v4", 275e12, 32 * GIB, 1.228e12, 50e9, 6.25e9, 3, 4, (("chip_config_name", "megacore"),)
    ),
    "v5e": Chip("v5e", 197e12, 16 * GIB, 0.819e12, 50e9, 3.125e9, 2, 16),
    "v5p": Chip("v5p", 459e12, 95 * GIB, 2.765e12, 100e9, 6.25e9, 3, 4),
    "v6e": Chip("v6e", 918e12, 32 * GIB, 1.640e12, 100e9, 12.5e9, 2, 16),
}


class TopologyError(ValueError):
    """A slice that does not exist, or no compiler for it; the message says what to use."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """`num_slices` slices of one chip, such as `v5p:8x8x8`."""

    chip: Chip
    bounds: tuple[int, ...]
    num_slices: int = 1

    @property
    def name(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.bounds))}"

    @property
    def num_chips(self) -> int:
        return self.num_slices * int(np.prod(self.bounds))

    def devices(self) -> list[Any]:
        """Devices of the slice for the compiler alone: nothing runs on them.

        Raises:
          TopologyError: libtpu is not installed, or knows no such slice.
        """
        from jax.experimental import topologies

        options = dict(self.chip.compiler_options)
        if self.num_slices > 1 or len(self.bounds) == 3:
            options |= dict([_HOST]) | {"num_slices": self.num_slices}
        try:
            found = topologies.get_topology_desc(self.name, platform="tpu", **options)
        except Exception as error:  # libtpu's are of many kinds
            if "libtpu" in str(error) or isinstance(error, ImportError | FileNotFoundError):
                raise TopologyError(f"the TPU compiler is not installed: {INSTALL}") from error
            message = str(error).splitlines()[0]
            raise TopologyError(f"topology {self.name}: {message}; try {self.nearest()}") from error
        return list(found.devices)

    def nearest(self) -> str:
        """A slice of this chip near in size that there is: equal powers of two along each axis."""
        side = max(2, 2 ** round(np.log2(max(1, np.prod(self.bounds))) / self.chip.dims))
        side = min(side, 16)
        return f"{self.chip.name}:{'x'.join([str(side)] * self.chip.dims)}"


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
    topology = Topology(chip, bounds, num_slices)
    if len(bounds) != chip.dims or 0 in bounds or num_slices < 1:
        raise TopologyError(
            f"topology {name!r} of {num_slices} slices: {chip.name} has {chip.dims} axes of 1 or "
            f"more chips, try {topology.nearest()}"
        )
    return topology
