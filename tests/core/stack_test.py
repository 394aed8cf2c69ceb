"""How a depth is cut, and that scanned, unrolled and rematerialised stacks are one function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flamingo_jax.core.layers import FeedForward
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import REMAT, Execution, Segment, Stack, fold, plan, reroll, unroll
from tests import tiny_flamingo as tiny


def gated_blocks(segments):
    """The language-model blocks that a gated block stands before."""
    return [s.start + i * s.depth for s in segments if s.gated for i in range(s.repeats)]


def test_plan_of_the_demo():
    assert plan(30, every=5, offset=8) == (
        Segment("before", 0, 1, 8, gated=False),
        Segment("groups", 8, 4, 5, gated=True),
        Segment("rest", 28, 1, 2, gated=True),
    )


@pytest.mark.parametrize(
    ("num_layers", "every", "offset", "want"),
    [
        (24, 1, 0, list(range(24))),  # Flamingo-3B
        (40, 4, 0, [0, 4, 8, 12, 16, 20, 24, 28, 32, 36]),  # Flamingo-9B: 10
        (80, 7, 0, [0, 7, 14, 21, 28, 35, 42, 49, 56, 63, 70, 77]),  # Flamingo-80B: 12
        (32, 4, 3, [3, 7, 11, 15, 19, 23, 27, 31]),  # OpenFlamingo-9B
        (24, 24, 12, [12]),  # a single block in the middle (ablation)
        (5, 3, 4, [4]),
    ],
)
def test_plan_puts_gated_blocks_where_the_papers_do(num_layers, every, offset, want):
    segments = plan(num_layers, every, offset)
    assert gated_blocks(segments) == want
    assert sum(s.repeats * s.depth for s in segments) == num_layers
    ends = [s.start + s.repeats * s.depth for s in segments]
    assert [s.start for s in segments] == [0, *ends[:-1]]


class Layer(nnx.Module):
    def __init__(self, rngs):
        self.ffw = FeedForward(4, 6, "silu", rngs=rngs)

    def __call__(self, x):
        return x + self.ffw(x)


def run(params, x, shifts, execution):
    """A stack of 3 layers with a per-layer input and output."""
    graph = nnx.graphdef(nnx.eval_shape(lambda: Stack(Layer, 3, execution, Rngs(0))))
    stack = nnx.merge(graph, params)

    def body(x, layers, shift):
        x = layers[0](x) + shift
        return x, x.sum()

    return fold(body, x, [stack], shifts)


@pytest.mark.parametrize("remat", REMAT)
def test_frozen_stacks_of_stacks_are_read_where_they_lie(remat):
    """To the last digit what slices give, and no scan is handed a stack to slice."""
    execution = Execution(remat=remat)
    inner = lambda rngs: Stack(Layer, 3, execution, rngs)  # noqa: E731

    def f(x, in_place):
        stack = Stack(inner, 2, execution.without_remat(), Rngs(0), in_place=in_place)
        layer = lambda x, layers, _: (layers[0](x), None)  # noqa: E731
        return fold(lambda x, stacks, _: fold(layer, x, stacks), x, [stack])[0]

    x = jnp.linspace(-1, 1, 8).reshape(2, 4)
    value_and_grad = jax.value_and_grad(lambda x, in_place: f(x, in_place).sum())
    jax.tree.map(np.testing.assert_array_equal, value_and_grad(x, True), value_and_grad(x, False))
    (scan,) = [
        e for e in jax.make_jaxpr(lambda x: f(x, True))(x).eqns if e.primitive.name == "scan"
    ]
    first = scan.params["num_consts"] + scan.params["num_carry"]
    assert [v.aval.shape for v in scan.invars[first:]] == [(2,)]


@pytest.fixture(scope="module")
def params():
    return nnx.to_pure_dict(nnx.state(Stack(Layer, 3, Execution(), Rngs(0))))


@pytest.mark.parametrize("remat", REMAT)
@pytest.mark.parametrize("scan", [True, False])
def test_every_execution_gives_the_same_results_and_gradients(params, scan, remat):
    x, shifts = jnp.ones((2, 4)), jnp.arange(3.0)
    plain, execution = Execution(), Execution(scan, remat)
    own = params if scan else unroll(params)

    def loss(params, execution):
        out, ys = run(params, x, shifts, execution)
        return jnp.square(out).sum() + ys[1], ys

    (want, want_ys), want_grads = jax.value_and_grad(loss, has_aux=True)(params, plain)
    (found, ys), grads = jax.value_and_grad(loss, has_aux=True)(own, execution)
    np.testing.assert_allclose(found, want, rtol=1e-6)
    np.testing.assert_allclose(ys, want_ys, rtol=1e-6)
    grads = grads if scan else reroll(grads)
    for a, b in zip(*map(jax.tree.leaves, (grads, want_grads)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_layers_of_a_new_stack_differ(params):
    kernel = params["layers"]["ffw"]["up"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1])


def test_one_layer_of_a_stack(params):
    graph = nnx.graphdef(nnx.eval_shape(lambda: Stack(Layer, 3, Execution(), Rngs(0))))
    one = nnx.merge(graph, params).layer(2)
    np.testing.assert_array_equal(
        one.ffw.up.kernel[...], params["layers"]["ffw"]["up"]["kernel"][2]
    )


def test_reroll_is_the_inverse_of_unroll_for_stacks_of_stacks():
    _, shapes, _ = tiny.abstract()
    params = tiny.random_params()
    unrolled = unroll(params)
    want = tiny.abstract(execution=tiny.UNROLLED)[1]
    assert jax.tree.map(jnp.shape, unrolled) == jax.tree.map(lambda s: s.shape, want)
    back = reroll(unrolled)
    assert jax.tree.structure(back) == jax.tree.structure(shapes)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_an_unknown_remat_names_those_there_are():
    with pytest.raises(ValueError, match=r"execution.remat='some': use one of .*'dots'"):
        Execution(remat="some")
