"""Counts by hand, and against XLA where it counts the same."""

import jax
import jax.numpy as jnp
import pytest

from flamingo_jax.core import op_count


def shape(*dims):
    return jax.ShapeDtypeStruct(dims, jnp.float32)


def test_a_product_is_two_operations_a_multiply_add():
    assert op_count.flops(jnp.matmul, shape(3, 5), shape(5, 7)) == 2 * 3 * 5 * 7
    batched = lambda a, b: jnp.einsum("bij,bkj->bik", a, b)  # noqa: E731
    assert op_count.flops(batched, shape(4, 3, 5), shape(4, 7, 5)) == 2 * 4 * 3 * 5 * 7


def test_what_is_no_product_does_not_count():
    assert op_count.flops(lambda x: jnp.exp(x).sum() + jnp.argsort(x), shape(9)) == 0


@pytest.mark.parametrize(
    ("stride", "padding", "groups", "dilation"),
    [(1, "SAME", 1, 1), (2, "SAME", 1, 1), (1, "VALID", 4, 1), (2, [(1, 1), (0, 2)], 8, 2)],
)
def test_convolutions_count_what_xla_counts(stride, padding, groups, dilation):
    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(
            image,
            kernel,
            (stride, stride),
            padding,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    args = shape(2, 9, 8, 8), shape(3, 3, 8 // groups, 16)
    xla = jax.jit(convolve).lower(*args).cost_analysis()["flops"]
    assert op_count.flops(convolve, *args) == xla


def test_taps_on_padding_do_not_count():
    """Three outputs of three taps, of which the first and the last miss one."""
    convolve = lambda x, k: jnp.convolve(x, k, mode="same")  # noqa: E731
    assert op_count.flops(convolve, shape(3), shape(3)) == 2 * (2 + 3 + 2)


def test_a_loop_counts_as_often_as_it_runs_and_a_condition_by_its_dearer_branch():
    def loop(x, w):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, length=6)[0]

    def condition(x, w):
        return jax.lax.cond(x.sum() > 0, lambda: x @ w @ w, lambda: x @ w)

    once = 2 * 3 * 5 * 5
    assert op_count.flops(loop, shape(3, 5), shape(5, 5)) == 6 * once
    assert op_count.flops(condition, shape(3, 5), shape(5, 5)) == 2 * once


def test_compiled_functions_and_gradients_are_looked_into():
    loss = lambda x, w: (jax.nn.relu(x @ w) ** 2).sum()  # noqa: E731, relu has its own derivative
    once = 2 * 3 * 5 * 7
    args = shape(3, 5), shape(5, 7)
    assert op_count.flops(jax.jit(loss), *args) == once
    assert op_count.flops(jax.grad(jax.jit(loss), argnums=(0, 1)), *args) == 3 * once


def test_a_loop_of_unknown_length_is_refused():
    def loop(x):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)

    with pytest.raises(ValueError, match="its length is not known"):
        op_count.flops(loop, shape(3, 3))
