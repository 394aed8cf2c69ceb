"""NFNet F0 to F7: the paper's vision encoder (F6), without batch normalisation.

Paper: section 2.1 and appendix B.1.3; the network is Brock et al. 2021 (arXiv 2102.06171). The
output is the grid after the final 1x1 convolution and its activation, 3072 channels at stride 32:
that reading gives F6 the 435 M parameters of the paper's Table 5. There is no classifier.

The first block of a stage changes width and stride; the others are identical but for one number
(beta, the inverse of the expected standard deviation of their input), so they are one stack that is
scanned with beta as its input. `activation="gelu"` and `std_conv_eps=1e-5` are timm's numerics; the
defaults are those that DeepMind's weights were trained with.
"""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flamingo_jax.config import Activation
from flamingo_jax.core.layers import ACTIVATIONS, Projection
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution, Stack, fold

Array = jax.Array

CHANNELS = "vision_channels"  # logical axis of output channels
ALPHA = 0.2  # each block's residual branch adds ALPHA**2 to the variance

# 1 / standard deviation of the activation of a unit normal: keeps the variance at 1.
GAMMA: dict[Activation, float] = {
    "gelu": 1.7015043497085571,
    "gelu_tanh": 1.7015043497085571,
    "relu": 1.7139588594436646,
    "silu": 1.7881293296813965,
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """The numbers in which the variants differ; defaults are those of every F model."""

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int] = (256, 512, 1536, 1536)
    group_width: int = 128


VARIANTS = {f"f{n}": Variant(tuple((n + 1) * d for d in (1, 2, 6, 3))) for n in range(8)}
VARIANTS["thin"] = Variant((1, 3, 1, 1), (32, 64, 96, 96), 16)  # for tests


class WSConv(nnx.Module):
    """Convolution with scaled weight standardisation, padded to ceil(size / stride)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        std_conv_eps: float | None = None,
        rngs: Rngs,
    ):
        shape = (size, size, inputs // groups, outputs)
        self.stride, self.groups, self.std_conv_eps = stride, groups, std_conv_eps
        kernel = jax.random.normal(rngs.params(), shape) / math.sqrt(math.prod(shape[:3]))
        self.kernel = nnx.Param(kernel, logical_axes=(None, None, None, CHANNELS))
        self.gain = nnx.Param(jnp.ones(outputs), logical_axes=(CHANNELS,))
        self.bias = nnx.Param(jnp.zeros(outputs), logical_axes=(CHANNELS,))

    def __call__(self, x: Array) -> Array:
        kernel = standardize(self.kernel[...], self.gain[...], self.std_conv_eps)
        y = jax.lax.conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            (self.stride, self.stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
        )
        return y + self.bias[...].astype(x.dtype)


def standardize(
    kernel: Array,  # [KH, KW, I, O]
    gain: Array,  # [O]
    std_conv_eps: float | None = None,
) -> Array:  # f32[KH, KW, I, O]
    """Zero mean and variance gain**2 / fan_in per output channel, in float32.

    Without `std_conv_eps` the variance has a floor, as DeepMind's; with it, that is added (timm).
    """
    kernel = kernel.astype(jnp.float32)
    fan_in = math.prod(kernel.shape[:3])
    mean = kernel.mean((0, 1, 2))
    variance = jnp.square(kernel - mean).mean((0, 1, 2))
    if std_conv_eps is None:
        scale = jax.lax.rsqrt(jnp.maximum(variance * fan_in, 1e-4))
    else:
        scale = jax.lax.rsqrt(variance + std_conv_eps) / math.sqrt(fan_in)
    return (kernel - mean) * (scale * gain.astype(jnp.float32))


class SqueezeExcite(nnx.Module):
    """One gate in (0, 2) per channel, from the mean over places."""

    def __init__(self, width: int, *, rngs: Rngs):
        kwargs = {"axes": (None, CHANNELS), "use_bias": True, "rngs": rngs}
        self.linear = Projection([width], [width // 2], **kwargs)
        self.linear_1 = Projection([width // 2], [width], **kwargs)

    def __call__(self, x: Array) -> Array:
        mean = x.mean((1, 2), keepdims=True)
        gate = jax.nn.sigmoid(self.linear_1(jax.nn.relu(self.linear(mean))))
        return 2 * gate * x


class Block(nnx.Module):
    """Pre-activation bottleneck: 1x1, two grouped 3x3, 1x1, squeeze-excite, scaled residual."""

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        stride: int = 1,
        group_width: int,
        activation: Activation,
        std_conv_eps: float | None,
        rngs: Rngs,
    ):
        self.activation, self.stride = activation, stride
        middle = width // 2
        conv = {"std_conv_eps": std_conv_eps, "rngs": rngs}
        grouped = {"groups": middle // group_width, **conv}
        self.conv0 = WSConv(inputs, middle, 1, **conv)
        self.conv1 = WSConv(middle, middle, 3, stride=stride, **grouped)
        self.conv1b = WSConv(middle, middle, 3, **grouped)
        self.conv2 = WSConv(middle, width, 1, **conv)
        projects = stride > 1 or inputs != width
        self.conv_shortcut = WSConv(inputs, width, 1, **conv) if projects else None
        self.squeeze_excite = SqueezeExcite(width, rngs=rngs)
        self.skip_gain = nnx.Param(jnp.zeros(()), logical_axes=())

    def __call__(
        self,
        x: Array,  # [N, H, W, I]
        beta: Array,  # f32[], 1 / expected standard deviation of x
        drop: Array | None = None,  # bool[N], True where stochastic depth drops the branch
    ) -> Array:  # [N, H / stride, W / stride, C]
        act = scaled_activation(self.activation)
        h = act(x) * beta.astype(x.dtype)
        shortcut = x
        if self.conv_shortcut is not None:
            shortcut = self.conv_shortcut(average_pool(h) if self.stride > 1 else h)
        h = self.conv1(act(self.conv0(h)))
        h = self.conv2(act(self.conv1b(act(h))))
        h = self.squeeze_excite(h)
        if drop is not None:
            h = jnp.where(drop[:, None, None, None], 0, h)
        return h * (ALPHA * self.skip_gain[...]).astype(x.dtype) + shortcut


class Stage(nnx.Module):
    """The block that changes width and stride, then the stack of identical ones."""

    def __init__(
        self,
        inputs: int,
        width: int,
        depth: int,
        *,
        stride: int,
        execution: Execution,
        rngs: Rngs,
        **block,
    ):
        self.first = Block(inputs, width, stride=stride, rngs=rngs, **block)
        self.rest = (
            Stack(lambda rngs: Block(width, width, rngs=rngs, **block), depth - 1, execution, rngs)
            if depth > 1
            else None
        )

    def __call__(
        self,
        x: Array,
        betas: Array,  # f32[depth]
        drops: Array | None,  # bool[depth, N]
    ) -> Array:
        x = self.first(x, *jax.tree.map(lambda a: a[0], (betas, drops)))
        if self.rest is None:
            return x
        rest = jax.tree.map(lambda a: a[1:], (betas, drops))
        return fold(lambda x, blocks, xs: (blocks[0](x, *xs), None), x, [self.rest], rest)[0]


class NFNet(nnx.Module):
    """[N, H, W, 3] normalised pictures of any size to [N, P, E] features, E = `width`."""

    stride = 32

    def __init__(
        self,
        variant: str,
        *,
        activation: Activation = "gelu_tanh",
        std_conv_eps: float | None = None,
        stochdepth_rate: float = 0.25,
        execution: Execution | None = None,  # None: scanned, no remat
        rngs: Rngs,
    ):
        if variant not in VARIANTS:
            raise ValueError(f"NFNet variant {variant!r}: use one of {list(VARIANTS)}")
        if activation not in GAMMA:
            raise ValueError(f"NFNet activation={activation!r}: use one of {list(GAMMA)}")
        v, execution = VARIANTS[variant], execution or Execution()
        self.depths, self.activation = v.depths, activation
        self.stochdepth_rate = stochdepth_rate
        self.width = 2 * v.widths[-1]
        conv = {"std_conv_eps": std_conv_eps, "rngs": rngs}
        channels = (3, *(v.widths[0] // n for n in (16, 8, 4, 2)))
        for i, stride in enumerate((2, 1, 1, 2)):
            stem = WSConv(*channels[i : i + 2], 3, stride=stride, **conv)
            setattr(self, f"stem_conv{i}", stem)
        inputs = channels[-1]
        block = {"group_width": v.group_width, "activation": activation, **conv}
        for i, (width, depth) in enumerate(zip(v.widths, v.depths, strict=True)):
            stride = 2 if i else 1
            stage = Stage(inputs, width, depth, stride=stride, execution=execution, **block)
            setattr(self, f"stage_{i}", stage)
            inputs = width
        self.final_conv = WSConv(inputs, self.width, 1, **conv)

    def num_features(self, size_px: int) -> int:
        """P for square pictures of this size; sizes that 32 does not divide are rounded up."""
        return math.ceil(size_px / self.stride) ** 2

    def __call__(
        self,
        images: Array,  # [N, H, W, 3]
        key: Array | None = None,  # given in training only: stochastic depth
    ) -> Array:  # [N, P, E]
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images are {list(images.shape)}, want [N, height, width, 3]")
        act = scaled_activation(self.activation)
        drops = self._drops(key, len(images))
        with jax.named_scope("nfnet"):
            x = self.stem_conv0(images)
            for i in range(1, 4):
                x = getattr(self, f"stem_conv{i}")(act(x))
            for i, stage_betas in enumerate(betas(self.depths)):
                x = getattr(self, f"stage_{i}")(x, jnp.array(stage_betas), drops[i])
            x = act(self.final_conv(x))
            n, height, width, channels = x.shape
            return x.reshape(n, height * width, channels)

    def _drops(self, key: Array | None, n: int) -> list[Array | None]:
        """bool[depth, N] a stage, True where a picture's residual branch is dropped."""
        if key is None:
            return [None] * len(self.depths)
        total = sum(self.depths)
        rates = stochdepth_rates(self.stochdepth_rate, total)
        drops = jax.random.bernoulli(key, rates[:, None], (total, n))
        return jnp.split(drops, list(itertools.accumulate(self.depths[:-1])))


def betas(depths: tuple[int, ...]) -> list[list[float]]:
    """1 / expected standard deviation of each block's input, stage by stage.

    Variance starts at 1, grows by ALPHA**2 a block, and is 1 again on the shortcut of the first
    block of a stage: that block still reads the sum of the stage before.

    >>> betas((1, 2))  # the blocks' inputs have variance 1, then 1.04, 1.04
    [[1.0], [0.9805806756909201, 0.9805806756909201]]
    """
    out, blocks_since_reset = [], 0
    for depth in depths:
        counts = [blocks_since_reset, *range(1, depth)]
        out.append([1 / math.sqrt(1 + ALPHA**2 * n) for n in counts])
        blocks_since_reset = depth
    return out


def stochdepth_rates(rate: float, num_blocks: int) -> Array:
    """f32[num_blocks] chances that a residual branch is dropped: from 0, growing with depth."""
    return rate * jnp.arange(num_blocks) / num_blocks


def scaled_activation(activation: Activation):
    """The activation times its gamma, in the dtype of its input."""
    return lambda x: ACTIVATIONS[activation](x) * GAMMA[activation]


def average_pool(x: Array) -> Array:
    """2x2 mean at stride 2; at an odd edge the mean of what is there."""
    window = (1, 2, 2, 1)

    def total(a):
        zero = np.zeros((), a.dtype)  # of numpy: a traced zero has no gradient rule
        return jax.lax.reduce_window(a, zero, jax.lax.add, window, window, "SAME")

    return total(x) / total(jnp.ones((1, *x.shape[1:3], 1), x.dtype))
