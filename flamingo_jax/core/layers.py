"""The few layers everything is made of: projection, norm, feed-forward.

Parameters are float32 when made and carry logical axis names (`logical_axes`), which
`core.partition` maps to the mesh. Computation follows the dtype of the input: kernels are cast to
it where they are used, norm statistics are float32.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.config import Activation, Initializer
from flamingo_jax.core.partition import constrain, gathered
from flamingo_jax.core.rngs import Rngs

Array = jax.Array
AxisNames = tuple[str | None, ...]


def gelu(x: Array) -> Array:
    """Exact GELU, in float32 by erf: on CPU less than half of what `jax.nn.gelu` costs by erfc."""
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1 + jax.lax.erf(wide * 2**-0.5))).astype(x.dtype)


ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "squared_relu": lambda x: jnp.square(jax.nn.relu(x)),
    "gelu": gelu,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


def truncated_normal(rngs: Rngs, shape: Sequence[int], fan_in: int) -> Array:
    """Truncated normal of standard deviation fan_in ** -0.5 (the paper names no initialiser)."""
    scale = 1 / (math.sqrt(fan_in) * 0.87962566)  # std of a unit normal cut at two
    return scale * jax.random.truncated_normal(rngs.params(), -2.0, 2.0, shape, jnp.float32)


def embedding_rows(
    count: int, width: int, rngs: Rngs, rows: str | None = None, columns: str = "embed"
) -> nnx.Param:
    """[count, width] learned vectors, normal of deviation 0.02; `rows`, `columns` name the axes."""
    value = 0.02 * jax.random.normal(rngs.params(), (count, width))
    return nnx.Param(value, logical_axes=(rows, columns))


def add_rows(x: Array, rows: Array) -> Array:
    """`x` plus learned vectors that are broadcast over it, in the dtype of `x`.

    Added in float32, for the vectors' gradient is a sum over all that they were added to.
    """
    return (x.astype(jnp.float32) + rows.astype(jnp.float32)).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def project(x: Array, kernel: Array, num_inputs: int) -> Array:
    """Product over the last `num_inputs` dims of `x` and the first of `kernel`.

    In the kernel's gradient the narrower factor stands on the left, because XLA on CPU transposes
    that one. JAX by itself puts the output's gradient there, which in a feed-forward is four times
    as wide as the input.
    """
    return jnp.tensordot(x, kernel, num_inputs)


def _project_forward(x, kernel, num_inputs):
    wanted = (kernel.value if x.perturbed else None, x.value if kernel.perturbed else None)
    # Not `project`, which would hide the product from a remat that keeps products.
    return jnp.tensordot(x.value, kernel.value, num_inputs), wanted


def _project_backward(num_inputs, wanted, grad):
    kernel, x = wanted
    d_x = d_kernel = None
    if kernel is not None:
        outputs = kernel.ndim - num_inputs
        last = tuple(range(grad.ndim - outputs, grad.ndim))
        d_x = jnp.tensordot(grad, kernel, (last, tuple(range(num_inputs, kernel.ndim))))
    if x is not None:
        rows = tuple(range(x.ndim - num_inputs))
        inputs, outputs = x.shape[len(rows) :], grad.shape[len(rows) :]
        if math.prod(inputs) <= math.prod(outputs):
            d_kernel = jnp.tensordot(_made(x), grad, (rows, rows))
        else:
            d_kernel = jnp.tensordot(_made(grad), x, (rows, rows))
            d_kernel = jnp.moveaxis(d_kernel, range(len(outputs)), range(-len(outputs), 0))
    return d_x, d_kernel


def _made(x):
    """`x` made before it is transposed: on CPU XLA would make it again while it walks across it."""
    return jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda x: x)


project.defvjp(_project_forward, _project_backward, symbolic_zeros=True)


class Projection(nnx.Module):
    """A linear map from the last dims `inputs` to dims `outputs`, such as [D] to [N, H]."""

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        axes: AxisNames,
        *,
        use_bias: bool = False,
        init: Initializer = "random",
        rngs: Rngs,
    ):
        shape = (*inputs, *outputs)
        self.num_inputs, self.axes = len(inputs), axes
        fan_in, fan_out = math.prod(inputs), math.prod(outputs)
        if init == "random":
            kernel = truncated_normal(rngs, shape, fan_in)
        elif init == "zeros":
            kernel = jnp.zeros(shape)
        else:
            kernel = jnp.eye(fan_in, fan_out).reshape(shape)
        self.kernel = nnx.Param(kernel, logical_axes=axes)
        bias_axes = axes[self.num_inputs :]
        self.bias = nnx.Param(jnp.zeros(outputs), logical_axes=bias_axes) if use_bias else None

    def __call__(self, x: Array) -> Array:
        kernel = gathered(self.kernel[...].astype(x.dtype), self.axes)
        y = project(x, kernel, self.num_inputs)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class Norm(nnx.Module):
    """RMS norm or layer norm over the last dim, in float32; layer norm has scale and bias.

    With `offset` it multiplies by 1 + scale, and the scale begins at 0.
    """

    def __init__(
        self,
        width: int,
        kind: str = "layernorm",
        eps: float = 1e-5,
        *,
        bias: bool = True,
        offset: bool = False,
    ):
        self.kind, self.eps, self.offset = kind, eps, offset
        scale = jnp.zeros(width) if offset else jnp.ones(width)
        self.scale = nnx.Param(scale, logical_axes=(None,))
        has_bias = bias and kind == "layernorm"
        self.bias = nnx.Param(jnp.zeros(width), logical_axes=(None,)) if has_bias else None

    def __call__(self, x: Array) -> Array:
        y = x.astype(jnp.float32)
        if self.kind == "layernorm":
            y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps)
        scale = self.scale[...].astype(jnp.float32)
        y = y * (1 + scale if self.offset else scale)
        if self.bias is not None:
            y = y + self.bias[...].astype(jnp.float32)
        return y.astype(x.dtype)


class FeedForward(nnx.Module):
    """Two linear layers around an activation, optionally gated (SwiGLU and its kin)."""

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: Activation,
        *,
        gated: bool = False,
        use_bias: bool = False,
        down_init: Initializer = "random",
        rngs: Rngs,
    ):
        self.activation = activation
        up = {"use_bias": use_bias, "rngs": rngs}
        self.gate = Projection([width], [hidden], ("embed", "mlp"), **up) if gated else None
        self.up = Projection([width], [hidden], ("embed", "mlp"), **up)
        self.down = Projection([hidden], [width], ("mlp", "embed"), init=down_init, **up)

    def __call__(self, x: Array) -> Array:
        act = ACTIVATIONS[self.activation]
        hidden = act(self.up(x)) if self.gate is None else act(self.gate(x)) * self.up(x)
        return self.down(constrain(hidden, "batch", *[None] * (x.ndim - 2), "mlp"))
