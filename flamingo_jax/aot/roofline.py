"""The time a step must take on a slice, from what its program does and the chips' published rates.

`step_s` is the longest of computing, HBM and networks, as if they overlapped wholly; `serial_s` is
their sum, as if nothing did. A run lies between the two. MFU counts the model's operations, not
what rematerialisation computes again.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from flamingo_jax.aot.chips import Topology
from flamingo_jax.aot.cost import Collective, Cost


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind along the same mesh axes, together."""

    kind: str
    axes: tuple[str, ...]
    times: float
    bytes: float  # that one chip sends over links
    slice_bytes: float  # and over the network between slices
    seconds: float


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one step, by what they are spent on, and what they come to."""

    compute_s: float
    hbm_s: float
    network_s: float
    traffic: tuple[Traffic, ...]

    @property
    def step_s(self) -> float:
        return max(self.compute_s, self.hbm_s, self.network_s)

    @property
    def serial_s(self) -> float:
        return self.compute_s + self.hbm_s + self.network_s

    @property
    def bound(self) -> str:
        """What the step waits for most."""
        parts = {"computing": self.compute_s, "HBM": self.hbm_s, "network": self.network_s}
        return max(parts, key=parts.get)


def roofline(cost: Cost, topology: Topology, mesh: Any) -> Roofline:
    """Of a program's cost on the devices of a mesh, in the mesh's order."""
    devices = list(np.ravel(mesh.devices))
    sums: dict[tuple[str, tuple[str, ...]], list[Traffic]] = {}
    for found in cost.collectives:
        part = _traffic(found, topology, mesh, devices)
        sums.setdefault((part.kind, part.axes), []).append(part)
    traffic = tuple(
        Traffic(
            kind,
            axes,
            *(sum(getattr(part, name) for part in parts) for name in _SUMMED),
        )
        for (kind, axes), parts in sorted(sums.items(), key=lambda kv: -_seconds(kv[1]))
    )
    chip = topology.chip
    return Roofline(
        cost.flops / chip.flops, cost.hbm_bytes / chip.hbm_rate, _seconds(traffic), traffic
    )


_SUMMED = ("times", "bytes", "slice_bytes", "seconds")


def _seconds(parts: Sequence[Traffic]) -> float:
    return sum(part.seconds for part in parts)


def _traffic(found: Collective, topology: Topology, mesh: Any, devices: list[Any]) -> Traffic:
    group = found.group or tuple(range(mesh.size))
    members = [devices[i] for i in group]
    slices = len({getattr(d, "slice_index", 0) or 0 for d in members})
    sent, slice_sent = found.sent, 0.0
    if slices > 1:  # inside each slice first, so each chip exchanges its share between slices
        slice_sent = found.sent / (len(members) / slices)
        sent = found.sent if len(members) > slices else 0.0
    rate = link_rate(topology, [d.coords for d in members], is_pair=len(members) == 2)
    seconds = found.times * (sent / rate + slice_sent / topology.chip.slice_network_rate)
    axes = mesh_axes(group, mesh.shape)
    return Traffic(
        found.kind, axes, found.times, found.times * sent, found.times * slice_sent, seconds
    )


def mesh_axes(group: Sequence[int], shape: dict[str, int]) -> tuple[str, ...]:
    """Axes of the mesh along which the devices of a group differ.

    >>> mesh_axes([0, 2], {"data": 2, "tensor": 2})
    ('data',)
    """
    places = np.unravel_index(np.array(group), tuple(shape.values()))
    return tuple(
        axis for axis, place in zip(shape, places, strict=True) if len(set(place.tolist())) > 1
    )


def link_rate(topology: Topology, coords: Sequence[Sequence[int]], *, is_pair: bool) -> float:
    """Bytes a second one way that a chip can use in a group that lies at `coords`.

    A ring along a whole axis of the torus uses its two links, part of an axis one. Two chips use
    the one link between them.
    """
    links = 0
    for dim, size in enumerate(topology.bounds):
        there = len({at[dim] for at in coords})
        is_ring = there == size and size % topology.chip.whole_axis == 0
        links += 0 if there == 1 else 2 if is_ring and not is_pair else 1
    return max(links, 1) * topology.chip.link_rate
