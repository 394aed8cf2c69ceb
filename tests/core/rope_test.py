"""Rotary positions: what a rotation must leave alone, and which length of a text slows it how."""

import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.config import LanguageModelConfig, LongRopeScaling, YarnScaling
from flamingo_jax.core.rope import rope_table, rotate

SHORT, LONG = (1.0, 1.0, 2.0, 4.0), (2.0, 4.0, 8.0, 16.0)


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


def test_each_row_turns_by_the_factors_of_its_own_length():
    """Pairs turn by 1, 1/10, 1/100 and 1/1000 a token where nothing slows them."""
    scaling = LongRopeScaling(SHORT, LONG, trained_length=5, attention_factor=3.0)
    positions, lengths = jnp.ones((2, 1), int), jnp.asarray([[5], [6]])
    cos, sin = rope_table(positions, 8, 10_000.0, scaling, lengths)
    angles = np.asarray([SHORT, LONG]) ** -1 * 10.0 ** -np.arange(4)
    np.testing.assert_allclose(cos[:, 0], 3 * np.cos(angles), rtol=1e-5)
    np.testing.assert_allclose(sin[:, 0], 3 * np.sin(angles), rtol=1e-5)


def test_yarn_slows_down_what_turns_too_rarely():
    """In 1000 tokens pairs turn 159, 16, 1.6 and 0.16 times: half of the ramp is at the third."""
    scaling = YarnScaling(4.0, 1000, attention_factor=1.0, slow_turns=0.2, fast_turns=15.0)
    _, sin = rope_table(jnp.ones((1, 1), int), 8, 10_000.0, scaling)
    want = np.asarray([1, 0.1, 0.01 * (1 + 1 / 4) / 2, 0.001 / 4])
    np.testing.assert_allclose(sin[0, 0], np.sin(want), rtol=1e-5)


def test_a_factor_for_each_pair():
    sizes = dict.fromkeys(("vocab_size", "num_layers", "width", "num_heads", "ffw_width"), 8)
    scaling = LongRopeScaling(SHORT, LONG[:3], 5, 1.0)
    with pytest.raises(ValueError, match="long_factors are 3: 8 dims that rotate want 4"):
        LanguageModelConfig(**sizes, head_dim=8, rope_scaling=scaling)
