"""EfficientNet-Lite, a small public image encoder, up to its last feature map.

Stands where the paper has its contrastively trained NFNet-F6 (section 2.1): a frozen network that
turns one frame into `P` features. EfficientNet without squeeze-and-excitation and with ReLU6, so
that it runs well on small devices. Differs from the published network in that batch norm, which is
fixed in a frozen encoder, is folded into each convolution's kernel and bias, and in that pooling
and the classifier are left out.

Speed on CPU: XLA runs a depthwise convolution as one grouped convolution 7 times slower than as the
sum of shifted, scaled copies written out here (10 against 70 pictures a second and core, Lite0 at
224 px). Pictures fit the cache best one or two at a time: `jax.lax.map(encoder, images,
batch_size=2)` reaches 93 a second where a batch of 32 reaches 60. On an accelerator call it whole.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.core.rngs import Rngs

Array = jax.Array


class Variant(NamedTuple):
    """What differs between the published sizes."""

    width: float  # channels of all blocks, times this
    depth: float  # repeats of the middle stages, times this
    size_px: int  # side of the pictures it was trained on


VARIANTS = {
    "lite0": Variant(1.0, 1.0, 224),
    "lite1": Variant(1.0, 1.1, 240),
    "lite2": Variant(1.1, 1.2, 260),
    "lite3": Variant(1.2, 1.4, 280),
    "lite4": Variant(1.4, 1.8, 300),
    "thin": Variant(0.25, 0.4, 64),  # not published: for tests and the micro recipe
}

STEM_CHANNELS = 32  # the same in every variant, as is HEAD_CHANNELS
HEAD_CHANNELS = 1280


class Block(NamedTuple):
    """One inverted residual block."""

    expand: int
    kernel: int
    stride: int
    in_channels: int
    out_channels: int


# expand, kernel, stride, out channels, repeats (the first of a stage has the stride)
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def blocks(variant: str) -> list[Block]:
    """All blocks of a variant, from the picture on. ValueError for an unknown name."""
    if variant not in VARIANTS:
        raise ValueError(f"EfficientNet variant {variant!r}: use one of {list(VARIANTS)}")
    scale = VARIANTS[variant]
    out, channels = [], STEM_CHANNELS
    for i, (expand, kernel, stride, width, repeats) in enumerate(_STAGES):
        width = _round_channels(width * scale.width)
        if 0 < i < len(_STAGES) - 1:  # Lite keeps the first and the last stage as they are
            repeats = math.ceil(repeats * scale.depth)
        for j in range(repeats):
            out.append(Block(expand, kernel, stride if j == 0 else 1, channels, width))
            channels = width
    return out


def _round_channels(channels: float) -> int:
    """To a multiple of 8, up where rounding down would lose more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def num_features(size_px: int) -> int:
    """P of a square picture: the side is halved five times, rounding up."""
    return math.ceil(size_px / 32) ** 2


class EfficientNetLite(nnx.Module):
    """Stem, inverted residual blocks `block_00`, `block_01`, ..., and head convolution."""

    def __init__(self, variant: str, *, rngs: Rngs, dtype: jnp.dtype = jnp.float32):
        """Random parameters of `dtype`, for tests; real ones come from `weights`."""
        specs = blocks(variant)
        self.num_blocks = len(specs)
        self.stem = Convolution(3, 3, STEM_CHANNELS, stride=2, rngs=rngs, dtype=dtype)
        for i, spec in enumerate(specs):
            setattr(self, f"block_{i:02d}", InvertedResidual(spec, rngs=rngs, dtype=dtype))
        self.head = Pointwise(specs[-1].out_channels, HEAD_CHANNELS, rngs=rngs, dtype=dtype)

    def __call__(
        self,
        images: Array,  # float[N, height, width, 3], already normalised
    ) -> Array:  # same dtype [N, P, 1280], P row by row from the top left
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images are {list(images.shape)}, want [N, height, width, 3]")
        with jax.named_scope("efficientnet_lite"):
            x = relu6(self.stem(images))
            for i in range(self.num_blocks):
                x = getattr(self, f"block_{i:02d}")(x)
            x = relu6(self.head(x))
            n, height, width, channels = x.shape
            return x.reshape(n, height * width, channels)


class InvertedResidual(nnx.Module):
    """Widen with a 1x1 convolution, filter each channel alone, narrow again; add where it fits."""

    def __init__(self, spec: Block, *, rngs: Rngs, dtype: jnp.dtype):
        wide = spec.in_channels * spec.expand
        self.has_expand = spec.expand > 1
        self.has_skip = spec.stride == 1 and spec.in_channels == spec.out_channels
        if self.has_expand:
            self.expand = Pointwise(spec.in_channels, wide, rngs=rngs, dtype=dtype)
        self.depthwise = Depthwise(spec.kernel, wide, stride=spec.stride, rngs=rngs, dtype=dtype)
        self.project = Pointwise(wide, spec.out_channels, rngs=rngs, dtype=dtype)

    def __call__(self, x: Array) -> Array:  # float[N, h, w, C]
        y = relu6(self.expand(x)) if self.has_expand else x
        y = relu6(self.depthwise(y))
        y = self.project(y)
        return x + y if self.has_skip else y


class Convolution(nnx.Module):
    """An ordinary `size` x `size` convolution with bias, "SAME" padding."""

    def __init__(self, size, in_channels, out_channels, *, stride, rngs, dtype):
        self.stride = stride
        shape = (size, size, in_channels, out_channels)
        self.kernel = _kernel(rngs, shape, size * size * in_channels, dtype)
        self.bias = _bias(out_channels, dtype)

    def __call__(self, x: Array) -> Array:  # float[N, h, w, C]
        y = jax.lax.conv_general_dilated(
            x,
            self.kernel[...].astype(x.dtype),
            (self.stride, self.stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + self.bias[...].astype(x.dtype)


class Pointwise(nnx.Module):
    """A 1x1 convolution with bias: one matrix product over the channels."""

    def __init__(self, in_channels, out_channels, *, rngs, dtype):
        self.kernel = _kernel(rngs, (in_channels, out_channels), in_channels, dtype)
        self.bias = _bias(out_channels, dtype)

    def __call__(self, x: Array) -> Array:  # float[N, h, w, C]
        y = jnp.einsum("nhwc,cd->nhwd", x, self.kernel[...].astype(x.dtype))
        return y + self.bias[...].astype(x.dtype)


class Depthwise(nnx.Module):
    """A convolution of each channel with its own `size` x `size` kernel, "SAME" padding."""

    def __init__(self, size, channels, *, stride, rngs, dtype):
        self.stride = stride
        self.kernel = _kernel(rngs, (size, size, channels), size * size, dtype)
        self.bias = _bias(channels, dtype)

    def __call__(self, x: Array) -> Array:  # float[N, h, w, C]
        n, height, width, channels = x.shape
        kernel = self.kernel[...].astype(jnp.float32)
        (out_h, pad_h), (out_w, pad_w) = (
            same_padding(side, kernel.shape[0], self.stride) for side in (height, width)
        )
        padded = jnp.pad(x, ((0, 0), pad_h, pad_w, (0, 0)))
        total = self.bias[...].astype(jnp.float32)  # 25 terms: summed in float32 always
        for i in range(kernel.shape[0]):
            for j in range(kernel.shape[1]):
                end = (i + (out_h - 1) * self.stride + 1, j + (out_w - 1) * self.stride + 1)
                strides = (1, self.stride, self.stride, 1)
                seen = jax.lax.slice(padded, (0, i, j, 0), (n, *end, channels), strides)
                total = total + seen.astype(jnp.float32) * kernel[i, j]
        return total.astype(x.dtype)


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, tuple[int, int]]:
    """Output side, and TensorFlow's "SAME" padding: the odd pixel goes to the right or bottom."""
    out = math.ceil(side / stride)
    total = max((out - 1) * stride + kernel - side, 0)
    return out, (total // 2, total - total // 2)


def relu6(x: Array) -> Array:
    return jnp.clip(x, 0, 6)


def _kernel(rngs: Rngs, shape: tuple[int, ...], fan_in: int, dtype: jnp.dtype) -> nnx.Param:
    value = jax.random.normal(rngs.params(), shape, dtype) * math.sqrt(2 / fan_in)
    return nnx.Param(
        value.astype(dtype), logical_axes=(None,) * (len(shape) - 1) + ("vision_channels",)
    )


def _bias(channels: int, dtype: jnp.dtype) -> nnx.Param:
    return nnx.Param(jnp.zeros(channels, dtype), logical_axes=("vision_channels",))
