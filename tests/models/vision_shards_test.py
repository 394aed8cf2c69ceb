"""Pictures shared out and encoded in chunks have the features they have alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.core import partition
from flamingo_jax.models import vision_shards

RNG = np.random.default_rng(0)
# Two datasets: 4 rows of 3 pictures, and 8 rows of one video of 2 frames.
MEDIA = [RNG.normal(size=(*lead, 2, 2, 3)).astype(np.float32) for lead in [(4, 3, 1), (8, 1, 2)]]
PARAMS = {"w": RNG.normal(size=(3, 5)).astype(np.float32)}


def encoder(params, x):
    """[N, H, W, 3] to [N, P, E], with the largest chunk it was given seen from outside."""
    sizes.append(len(x))
    return jnp.tanh(x @ params["w"]).reshape(len(x), -1, 5)


sizes: list[int] = []


@pytest.fixture
def want():
    return [np.tanh(x @ PARAMS["w"]).reshape(*x.shape[:3], 4, 5) for x in MEDIA]


def run(images_at_once):
    sizes.clear()
    f = jax.jit(lambda p, m: vision_shards.encode(encoder, p, m, images_at_once))
    return f(PARAMS, MEDIA)


@pytest.mark.parametrize(("at_once", "chunk"), [(100, 28), (28, 28), (10, 10), (9, 7), (1, 1)])
def test_chunks_change_nothing_and_are_of_one_size(want, at_once, chunk):
    for a, b in zip(run(at_once), want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert set(sizes) == {chunk}


@pytest.mark.parametrize(("shape", "share"), [((2, 2, 2), 4), ((1, 1, 8), 4), ((4, 1, 2), 4)])
def test_every_device_encodes_its_share(want, shape, share):
    """28 pictures on 8 devices: 3.5 each, so 4 with the last one's padding."""
    with jax.set_mesh(partition.make_mesh(*shape)):
        found = run(100)
    for a, b in zip(found, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert set(sizes) == {share}


def test_rows_that_the_mesh_does_not_divide_are_encoded_everywhere(want):
    with jax.set_mesh(partition.make_mesh(8, 1, 1)):
        found = run(100)  # 4 rows among 8 devices
    for a, b in zip(found, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
