"""Matrix products and convolutions of a function, counted from its trace without running it.

For networks whose count no short formula gives, such as the convolutional vision encoders. A loop
counts as often as it runs, which XLA's own count does not know; of a condition the dearer branch
counts. Taps of a convolution that fall on padding are not counted, as XLA does not count them.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax


def flops(f: Callable, *args: Any) -> int:
    """Operations, two a multiply-add, of `f(*args)`; the arguments may be shapes.

    Raises:
      ValueError: a loop whose length is not known when it is traced.
    """
    return 2 * _multiply_adds(jax.make_jaxpr(f)(*args).jaxpr)


def _multiply_adds(jaxpr: Any) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        inner = [_multiply_adds(sub) for sub in _sub_jaxprs(eqn.params)]
        match eqn.primitive.name:
            case "dot_general":
                total += _dot(eqn)
            case "conv_general_dilated":
                total += _convolution(eqn)
            case "scan":
                total += eqn.params["length"] * sum(inner)
            case "cond":
                total += max(inner)
            case "while" if any(inner):
                raise ValueError("a while loop with matrix products: its length is not known")
            case _:
                total += sum(inner)
    return total


def _sub_jaxprs(params: dict[str, Any]) -> list[Any]:
    """What an operation calls; of custom derivatives, the function itself."""
    values = itertools.chain.from_iterable(
        value if isinstance(value, tuple | list) else (value,) for value in params.values()
    )
    jaxprs = (getattr(value, "jaxpr", value) for value in values)
    return [jaxpr for jaxpr in jaxprs if hasattr(jaxpr, "eqns")]


def _dot(eqn: Any) -> int:
    """Every element of the result is a sum over the contracted dims."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    return math.prod(eqn.outvars[0].aval.shape) * math.prod(left[dim] for dim in contracted)


def _convolution(eqn: Any) -> int:
    params = eqn.params
    numbers = params["dimension_numbers"]
    image, kernel = (var.aval.shape for var in eqn.invars[:2])
    out = eqn.outvars[0].aval.shape
    batch, channels = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
    inputs = kernel[numbers.rhs_spec[1]]  # of one group
    taps = (
        _taps(out[o], image[i], kernel[k], *rest)
        for o, i, k, *rest in zip(
            numbers.out_spec[2:],
            numbers.lhs_spec[2:],
            numbers.rhs_spec[2:],
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            strict=True,
        )
    )
    return batch * channels * inputs * math.prod(taps)


def _taps(
    num_out: int,
    num_in: int,
    num_kernel: int,
    stride: int,
    padding: tuple[int, int],
    in_dilation: int,
    kernel_dilation: int,
) -> int:
    """Along one dim, pairs of an output and a kernel element that meet an input element."""
    return sum(
        0 <= place <= (num_in - 1) * in_dilation and place % in_dilation == 0
        for i in range(num_out)
        for k in range(num_kernel)
        for place in [i * stride + k * kernel_dilation - padding[0]]
    )
