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
MASKS = [np.ones(x.shape[:3], bool) for x in MEDIA]
PARAMS = {"w": RNG.normal(size=(3, 5)).astype(np.float32)}


def encoder(params, x):
    """[N, H, W, 3] to [N, P, E], with the largest chunk it was given seen from outside."""
    sizes.append(len(x))
    return jnp.tanh(x @ params["w"]).reshape(len(x), -1, 5)


sizes: list[int] = []


@pytest.fixture
def want():
    return [np.tanh(x @ PARAMS["w"]).reshape(*x.shape[:3], 4, 5) for x in MEDIA]


def run(images_at_once, masks=MASKS):
    sizes.clear()
    f = jax.jit(lambda p, m, masks: vision_shards.encode(encoder, p, m, masks, images_at_once))
    return f(PARAMS, MEDIA, masks)


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


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 2), (1, 1, 8)])
@pytest.mark.parametrize("at_once", [2, 100])
def test_pictures_among_empty_slots_have_the_features_they_have_alone(want, shape, at_once):
    masks = [RNG.random(mask.shape) < 0.4 for mask in MASKS]
    with jax.set_mesh(partition.make_mesh(*shape, devices=jax.devices()[: np.prod(shape)])):
        found = run(at_once, masks)
    for a, b, mask in zip(found, want, masks, strict=True):
        np.testing.assert_allclose(a[mask], b[mask], atol=1e-6)
        assert np.isfinite(a).all()


def test_a_chunk_of_empty_slots_is_not_encoded():
    """Of 28 slots every third holds a picture, 10 of them: three chunks of 4 where all took 7."""
    seen = []

    def watched(params, x):
        jax.debug.callback(lambda n: seen.append(n), len(x))
        return encoder(params, x)

    masks = [np.arange(mask.size).reshape(mask.shape) % 3 == 0 for mask in MASKS]
    assert sum(map(np.sum, masks)) == 10
    jax.jit(lambda p, m: vision_shards.encode(watched, p, m, masks, 4))(PARAMS, MEDIA)
    jax.effects_barrier()
    assert len(seen) == 3
