"""Pictures exchanged by hand, for rows of every kind, and on a mesh.

The losses are compared in tests/experiments/training/validation_test.py.
"""

import re

import jax
import numpy as np
import pytest

from flamingo_jax.batch import Batch
from flamingo_jax.core import hosts, partition
from flamingo_jax.train import validation
from tests import tiny_flamingo as tiny


def test_neighbours_show_each_other_their_pictures():
    """Pictures are told by their number; 0 is an empty slot."""
    pictures = np.array(
        [
            [[1], [2], [0]],
            [[3], [4], [5]],  # one more than the row before
            [[6], [0], [7]],  # a packed row whose second record is bad
            [[8], [9], [0]],
            [[10], [0], [0]],
            [[0], [0], [0]],  # a bad record
            [[11], [0], [0]],
            [[12], [0], [0]],
        ]
    )
    tokens = np.zeros((8, 4), np.int32)
    batch = Batch(
        tokens=tokens,
        token_mask=tokens == 0,
        loss_mask=np.arange(4) > np.zeros((8, 1)),
        media_index=tokens,
        media=pictures[..., None, None].astype(np.float32),
        media_mask=pictures > 0,
    )
    right, other = validation.other_pictures(batch)
    shown = np.where(other.media_mask, other.media[..., 0, 0], 0)[..., 0]
    np.testing.assert_array_equal(shown[:4], [[3, 4, 0], [1, 2, 1], [8, 0, 9], [6, 7, 0]])
    np.testing.assert_array_equal(shown[6:], [[12, 0, 0], [11, 0, 0]])
    for made in (right, other):
        np.testing.assert_array_equal(made.loss_mask[:4], batch.loss_mask[:4])
        assert not np.any(made.loss_mask[4:6])  # the good one has nobody to exchange with
        np.testing.assert_array_equal(made.loss_mask[6:], batch.loss_mask[6:])
    np.testing.assert_array_equal(right.media, batch.media)
    np.testing.assert_array_equal(right.media_mask, batch.media_mask)


def test_a_video_brings_its_own_number_of_frames():
    frames = np.array([[[True, True]], [[True, False]]])
    batch = tiny.random_batch(num_media=1, num_frames=2)._replace(media_mask=frames)
    _, other = validation.other_pictures(batch)
    np.testing.assert_array_equal(other.media_mask, frames[::-1])
    np.testing.assert_array_equal(other.media, batch.media[::-1])


def test_nothing_leaves_its_device():
    mesh = partition.make_mesh(data=2, fsdp=2, tensor=2)
    batch = hosts.place_rows(tiny.random_batch(batch_size=8), mesh)
    exchange = jax.jit(validation.other_pictures, out_shardings=partition.batch_sharding(mesh))
    with jax.set_mesh(mesh):
        program = exchange.lower(batch).compile().as_text()
        _, other = exchange(batch)
    assert not re.search("all-gather|all-reduce|all-to-all|collective-permute", program)
    np.testing.assert_array_equal(other.media, np.asarray(batch.media)[[1, 0, 3, 2, 5, 4, 7, 6]])


def test_rows_that_have_no_neighbour_on_their_device_are_refused():
    mesh = partition.make_mesh(data=2, fsdp=2, tensor=2)
    validation.check_batch("data.validation.pairs", 16, mesh)
    message = r"^data.validation.pairs.batch_size=12: .* there are 4 devices .*: use 16$"
    with pytest.raises(ValueError, match=message):
        validation.check_batch("data.validation.pairs", 12, mesh)
