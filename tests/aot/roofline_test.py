"""Slices by name, links by place, and the time that a known cost must take."""

import types

import numpy as np
import pytest

from flamingo_jax.aot import chips, roofline
from flamingo_jax.aot.cost import Collective, Cost


def fake_mesh(topology, **shape):
    """Devices in the order of their coordinates, as axes of the mesh."""
    places = [
        types.SimpleNamespace(coords=at, slice_index=s)
        for s in range(topology.num_slices)
        for at in np.ndindex(topology.bounds)
    ]
    devices = np.array(places, object).reshape(tuple(shape.values()))
    return types.SimpleNamespace(devices=devices, shape=shape, size=len(places))


def test_a_slice_by_name():
    topology = chips.parse("v5p:8x8x8")
    assert (topology.num_chips, topology.name) == (512, "v5p:8x8x8")
    assert chips.parse("v6e:16x16", 2).num_chips == 512


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5p", "write CHIP:SHAPE"),
        ("v5q:2x2x2", r"no chip v5q, use one of \['v4', 'v5e', 'v5p', 'v6e'\] \(v5p\)"),
        ("v5p:8x8", "use v5p:4x4x4"),
        ("v6e:4x4x4", "use v6e:8x8"),
        ("v4:0x2x2", "use v4:2x2x1"),
        ("v4:1x2x2", "use v4:2x2x1"),
        ("v6e:32x32", "no such slice of v6e, whose largest is v6e:16x16: use v6e:16x16"),
        ("v5e:64x64", "use v5e:16x16"),
        ("v5e:3x3", "use v5e:2x4"),
        ("v5p:8x8x7", "use v5p:8x8x8"),
        ("v5p:2x8x8", "use v5p:4x4x8"),
        ("v5p:30x30x30", "whose largest is v5p:16x16x24: use v5p:16x16x24"),
        ("v5p:64x64x64", "use v5p:16x16x24"),
        ("v4:16x16x24", "use v4:16x16x16"),
    ],
)
def test_a_slice_that_cannot_be_says_which_can(name, message):
    with pytest.raises(chips.TopologyError, match=message):
        chips.parse(name)


@pytest.mark.parametrize(
    "name",
    ["v4:2x2x1", "v4:2x2x4", "v4:16x16x16", "v5p:4x8x8", "v5p:8x8x4", "v5p:16x16x24", "v6e:1x1"],
)
def test_slices_of_the_published_tables_are_taken(name):
    assert chips.parse(name).name == name


def test_the_compiler_gets_every_size_of_slice(libtpu):
    """One chip, a cube of several hosts, and two slices with 32 chips each."""
    for name, num_slices in (("v5e:1x1", 1), ("v5p:4x4x4", 1), ("v6e:4x8", 2)):
        topology = chips.parse(name, num_slices)
        devices = topology.devices()
        assert len(devices) == topology.num_chips
        assert len({getattr(device, "slice_index", 0) for device in devices}) == num_slices


def test_a_libtpu_elsewhere_is_one_too(monkeypatch, tmp_path):
    monkeypatch.setattr(chips.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "libtpu.so"))
    with pytest.raises(chips.TopologyError, match=r"pip install 'flamingo_jax\[tpu\]'"):
        chips.parse("v5e:2x2").devices()
    (tmp_path / "libtpu.so").touch()
    assert chips._has_compiler()


def test_mesh_axes_of_a_group():
    shape = {"slice": 1, "data": 4, "fsdp": 2, "tensor": 8}
    assert roofline.mesh_axes(range(8), shape) == ("tensor",)
    assert roofline.mesh_axes([0, 16, 32, 48], shape) == ("data",)
    assert roofline.mesh_axes(range(16), shape) == ("fsdp", "tensor")


def test_links_of_rings_lines_and_pairs():
    topology = chips.parse("v5p:8x8x4")
    rate = lambda coords, **k: roofline.link_rate(topology, coords, **{"is_pair": False} | k)  # noqa: E731
    assert rate([(x, 0, 0) for x in range(8)]) == 200e9  # closed to a ring
    assert rate([(x, 0, 0) for x in range(4)]) == 100e9  # half of it is not
    assert rate(list(np.ndindex(8, 8, 1))) == 400e9
    assert rate([(0, 0, 0), (1, 0, 0)], is_pair=True) == 100e9


def test_a_step_waits_for_the_slowest():
    topology = chips.parse("v5p:4x4x4")
    mesh = fake_mesh(topology, slice=1, data=16, fsdp=1, tensor=4)
    reduce = Collective("all-reduce", 10.0, 4e9, (0, 1, 2, 3), "")
    found = roofline.roofline(Cost(459e12, 2.765e12 / 4, (reduce,), {}), topology, mesh)
    assert found.compute_s == 1.0
    assert found.hbm_s == 0.25
    (traffic,) = found.traffic
    assert traffic.axes == ("tensor",)
    assert traffic.bytes == 10 * 2 * 3 / 4 * 4e9
    assert found.network_s == pytest.approx(traffic.bytes / 200e9)
    assert (found.step_s, found.bound) == (1.0, "computing")
    assert found.serial_s == pytest.approx(1.25 + found.network_s)


def test_slices_exchange_over_their_own_network():
    topology = chips.parse("v5p:4x4x4", 2)
    mesh = fake_mesh(topology, slice=2, data=16, fsdp=1, tensor=4)
    across = Collective("all-reduce", 1.0, 1e9, (0, 64), "")
    (traffic,) = roofline.roofline(Cost(0, 0, (across,), {}), topology, mesh).traffic
    assert traffic.axes == ("slice",)
    assert (traffic.bytes, traffic.slice_bytes) == (0, 1e9)
    assert traffic.seconds == pytest.approx(1e9 / 6.25e9)
