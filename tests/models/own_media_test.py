"""Attention to a token's own media: as masking computes it, in any order, for its own cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flamingo_jax.config import CrossAttentionConfig
from flamingo_jax.core import params as params_lib
from flamingo_jax.core import partition
from flamingo_jax.core.attention import attend
from flamingo_jax.models.gated_xattn import GatedCrossAttention, MediaKeys
from flamingo_jax.models.media_mask import over_latents
from flamingo_jax.models.own_media import attend_to_own, block_size, regroup

B, N, H, R = 4, 2, 5, 3


def inputs(t: int, m: int, seed: int = 0):
    """Media in any order, and none for some tokens."""
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(B, t, N, H)).astype(np.float32)
    key, value = rng.normal(size=(2, B, m * R, N, H)).astype(np.float32)
    phi = rng.integers(0, m + 1, (B, t))
    phi[0] = np.sort(phi[0])
    return q, key, value, phi[..., None] == 1 + np.arange(m)


@jax.jit
def masked(q, key, value, mask):
    return attend(q, key, value, over_latents(jnp.asarray(mask), R))


@pytest.mark.parametrize(("t", "m"), [(1, 4), (7, 1), (16, 5), (40, 5), (9, 33)])
def test_it_equals_masked_attention(t, m):
    x = inputs(t, m)
    found = jax.jit(attend_to_own)(*x)
    np.testing.assert_allclose(found, masked(*x), atol=1e-6)
    assert (np.asarray(found)[~x[3].any(-1)] == 0).all()


def test_so_do_its_gradients():
    *x, mask = inputs(24, 3)

    def gradients(f):
        return jax.jit(jax.grad(lambda *x: jnp.sin(f(*x, mask)).sum(), (0, 1, 2)))(*x)

    for a, b in zip(gradients(attend_to_own), gradients(masked), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_and_on_a_mesh():
    x = inputs(16, 3)
    with jax.set_mesh(partition.make_mesh(2, 2, 2)):
        found = jax.jit(attend_to_own)(*x)
    np.testing.assert_allclose(found, masked(*x), atol=1e-6)


@pytest.mark.parametrize("m", [1, 3])
def test_media_may_lie_in_one_list(m):
    """In any order, those of a row apart from each other, and one that is nobody's."""
    q, key, value, mask = inputs(16, m)
    items = np.random.default_rng(1).permutation(B * m + 1)[: B * m].reshape(B, m).astype(np.int32)

    def listed(x):
        apart = np.full((B * m + 1, R, N, H), np.nan, np.float32)
        apart[items] = x.reshape(B, m, R, N, H)
        return apart

    found = jax.jit(attend_to_own)(q, listed(key), listed(value), mask, items)
    np.testing.assert_allclose(found, masked(q, key, value, mask), atol=1e-6)


def test_places_as_the_docstring_draws_them():
    place, block_media = regroup(jnp.array([[0, 0, 0, 1, 1, 1, 1]]), 2, 2, 4)
    assert place.tolist() == [[0, 1, 2, 4, 5, 6, 7]]
    assert block_media.tolist() == [[0, 0, 1, 1]]


def test_unfilled_places_are_at_most_a_quarter_of_the_tokens():
    for t in (1, 4, 31, 32, 64, 256):
        for m in range(2, 40):
            size = block_size(t, m)
            assert m * (size - 1) <= t / 4
            assert size & (size - 1) == 0


def test_33_media_cost_a_block_little_more_than_one():
    """Compiled FLOPs of the text's side of a gated block: the keys are made once a picture."""
    t, latents, width = 256, 64, 128
    config = CrossAttentionConfig(num_heads=2, head_dim=64)
    graph, shapes, _ = params_lib.abstract(
        lambda rngs: GatedCrossAttention(config, width, width, rngs=rngs)
    )

    def flops(m, f):
        struct = jax.ShapeDtypeStruct
        keys = struct((1, m * latents, 2, 64), jnp.float32)
        text, mask = struct((1, t, width), jnp.float32), struct((1, t, m), bool)
        return jax.jit(f).lower(shapes, text, keys, mask).compile().cost_analysis()["flops"]

    def block(params, x, keys, mask):
        return nnx.merge(graph, params)(x, MediaKeys(keys, keys), mask)

    def attention(params, x, keys, mask):
        return attend_to_own(x.reshape(1, t, 2, 64), keys, keys, mask)

    assert flops(33, block) < 1.3 * flops(1, block)
    assert flops(33, attention) < 1.3 * flops(1, attention)
