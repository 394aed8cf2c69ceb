"""Published EfficientNet-Lite weights -> parameters of `models.efficientnet_lite`.

The source is a torch state dict in the names of the `efficientnet_lite_pytorch` packages. Each
convolution there is followed by batch norm, a fixed affine map at inference; it is folded into the
convolution: kernel * scale and shift with scale = weight / sqrt(running_var + eps), shift = bias -
running_mean * scale. Done in float64, kept in float32.
"""

from collections.abc import Mapping

import numpy as np

from flamingo_jax.models import efficientnet_lite
from flamingo_jax.weights import finite
from flamingo_jax.weights.errors import BadWeightsFile

BATCH_NORM_EPS = 1e-3  # TensorFlow's, where these weights come from; torch's default is 1e-5

CLASSIFIER = ("_fc.weight", "_fc.bias")
COUNTER = ".num_batches_tracked"  # end of the names of what batch norm counts in training


def variant(state: Mapping[str, np.ndarray]) -> str:
    """Which variant has blocks of these widths; BadWeightsFile for none."""
    widths: list[int] = []
    while (name := f"_blocks.{len(widths)}._project_conv.weight") in state:
        widths.append(sum(state[name].shape[:1]))  # 0 of a number alone
    for name in efficientnet_lite.VARIANTS:
        if widths == [block.out_channels for block in efficientnet_lite.blocks(name)]:
            return name
    raise BadWeightsFile(
        f"{len(widths)} blocks (_blocks.N._project_conv.weight) of widths {sorted({*widths})}: no "
        f"EfficientNet-Lite of {list(efficientnet_lite.VARIANTS)} has those"
    )


def convert(state: Mapping[str, np.ndarray], variant: str) -> dict[str, np.ndarray]:
    """Our parameters by path, such as "block_03/depthwise/kernel"; all float32.

    Raises BadWeightsFile for an entry that is missing, left over or of another shape than the
    variant's.
    """
    left = dict(state)
    out: dict[str, np.ndarray] = {}

    def take(source: str, norm: str, path: str, shape: tuple[int, ...]) -> None:
        kernel = _pop(left, f"{source}.weight", shape).astype(np.float64)
        scale, bias, mean, variance = (
            _pop(left, f"{norm}.{name}", shape[:1]).astype(np.float64)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        left.pop(f"{norm}{COUNTER}", None)
        scale = scale / np.sqrt(variance + BATCH_NORM_EPS)
        kernel = np.einsum("oihw,o->hwio", kernel, scale)
        if path.endswith("depthwise"):
            kernel = kernel[:, :, 0]
        elif kernel.shape[:2] == (1, 1):
            kernel = kernel[0, 0]
        out[f"{path}/kernel"] = np.ascontiguousarray(kernel, np.float32)
        out[f"{path}/bias"] = (bias - mean * scale).astype(np.float32)

    channels = efficientnet_lite.STEM_CHANNELS
    take("_conv_stem", "_bn0", "stem", (channels, 3, 3, 3))
    for i, block in enumerate(efficientnet_lite.blocks(variant)):
        source, path = f"_blocks.{i}", f"block_{i:02d}"
        wide, size = block.in_channels * block.expand, block.kernel
        if block.expand > 1:
            shape = (wide, block.in_channels, 1, 1)
            take(f"{source}._expand_conv", f"{source}._bn0", f"{path}/expand", shape)
        shape = (wide, 1, size, size)
        take(f"{source}._depthwise_conv", f"{source}._bn1", f"{path}/depthwise", shape)
        shape = (block.out_channels, wide, 1, 1)
        take(f"{source}._project_conv", f"{source}._bn2", f"{path}/project", shape)
        channels = block.out_channels
    take("_conv_head", "_bn1", "head", (efficientnet_lite.HEAD_CHANNELS, channels, 1, 1))
    if unknown := [name for name in left if name not in CLASSIFIER]:
        raise BadWeightsFile(
            f"EfficientNet-Lite weights have {len(unknown)} entries {variant} does not know, first "
            f"{unknown[0]!r}: give the variant the file is of"
        )
    return out


def _pop(left: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name not in left:
        raise BadWeightsFile(
            f"EfficientNet-Lite weights lack {name!r}: give the variant the file is of"
        )
    array = left.pop(name)
    if array.shape != shape:
        raise BadWeightsFile(
            f"EfficientNet-Lite weight {name!r} is {list(array.shape)}, want {list(shape)}: give "
            f"the variant the file is of"
        )
    finite.check(f"EfficientNet-Lite weight {name!r}", array)
    return array
