"""Whose rows are whose, for meshes of eight devices shared out among processes."""

import jax
import numpy as np
import pytest

from flamingo_jax.core import hosts, partition

pytestmark = pytest.mark.skipif(jax.device_count() != 8, reason="conftest makes eight CPU devices")


def shares(mesh, devices_of_a_process: int) -> list[tuple[int, int]]:
    """`batch_share` of every process, devices shared out in their order."""
    return [
        hosts.batch_share(mesh, lambda d: d.id // devices_of_a_process, here)
        for here in range(8 // devices_of_a_process)
    ]


@pytest.mark.parametrize(
    ("sizes", "devices", "want"),
    [
        ((8, 1, 1), 2, [(0, 4), (1, 4), (2, 4), (3, 4)]),
        ((2, 4, 1), 4, [(0, 2), (1, 2)]),
        ((2, 2, 2), 2, [(0, 4), (1, 4), (2, 4), (3, 4)]),
        ((2, 2, 2), 1, [(0, 4), (0, 4), (1, 4), (1, 4), (2, 4), (2, 4), (3, 4), (3, 4)]),
        ((1, 2, 4), 2, [(0, 2), (0, 2), (1, 2), (1, 2)]),
        ((1, 1, 8), 4, [(0, 1), (0, 1)]),
        ((8, 1, 1), 8, [(0, 1)]),
    ],
)
def test_processes_of_one_tensor_group_read_the_same_rows(sizes, devices, want):
    assert shares(partition.make_mesh(*sizes), devices) == want


def test_rows_that_overlap_in_part_are_refused():
    mesh = partition.make_mesh(1, 2, 3, devices=jax.devices()[:6])
    with pytest.raises(ValueError, match="overlap in part; choose tensor so that it divides"):
        hosts.batch_share(mesh, lambda device: device.id // 2, 0)


def test_placing_keeps_values_and_cuts_them():
    mesh = partition.make_mesh(4, 1, 2)
    where = partition.batch_sharding(mesh)
    rows = {"a": np.arange(8.0), "b": np.ones((4, 3))}
    for placed in (hosts.place(rows, where), hosts.place_rows(rows, mesh)):
        for name, leaf in placed.items():
            assert leaf.sharding.is_equivalent_to(where, leaf.ndim)
            np.testing.assert_array_equal(leaf, rows[name])
