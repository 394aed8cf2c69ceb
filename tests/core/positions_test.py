"""Rotary and ALiBi positions: hand-worked slopes, and what a rotation must leave alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core.positions import alibi_slopes, rope_table, rotate


def test_alibi_slopes_halve_from_head_to_head():
    assert alibi_slopes(8).tolist() == [2.0**-h for h in range(1, 9)]


def test_alibi_slopes_of_six_heads_skip_every_other_of_eight():
    assert alibi_slopes(6).tolist() == [2.0**-h for h in (2, 4, 6, 8, 1, 3)]


def test_rotation_by_a_quarter_turn():
    x = jnp.asarray([[[[1.0, 2.0, 3.0, 4.0]]]])  # dims pair up as (0, 2) and (1, 3)
    table = (jnp.zeros((1, 1, 2)), jnp.ones((1, 1, 2)))
    assert rotate(x, table).tolist() == [[[[-3.0, -4.0, 1.0, 2.0]]]]


def test_partial_rotation_passes_the_other_dims():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 2, 16)), jnp.float32)
    y = rotate(x, rope_table(jnp.arange(5)[None], 4, 10_000.0))
    assert jnp.array_equal(x[..., 4:], y[..., 4:])
    assert jnp.array_equal(x[:, 0], y[:, 0])  # position 0 is no rotation
    assert (jnp.abs(x - y)[:, 1:, :, :4] > 1e-4).all()


def test_rotated_products_depend_on_the_distance_only():
    q, k = np.random.default_rng(0).normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

    def product(i, j):
        turn = [rope_table(jnp.asarray([[p]]), 8, 10_000.0) for p in (i, j)]
        return float((rotate(q, turn[0]) * rotate(k, turn[1])).sum())

    assert product(9, 4) == pytest.approx(product(105, 100), abs=1e-4)
    assert abs(product(9, 4) - product(9, 5)) > 1e-3


@pytest.mark.parametrize("dims", [0, 3, 10])
def test_rope_dims_that_cannot_be_are_refused(dims):
    sizes = dict.fromkeys(("vocab_size", "num_layers", "width", "num_heads", "ffw_width"), 8)
    with pytest.raises(ValueError, match=rf"rope_dims={dims}: use an even number up to head_dim=8"):
        LanguageModelConfig(**sizes, head_dim=8, rope_dims=dims)
