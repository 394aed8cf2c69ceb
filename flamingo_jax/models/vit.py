"""CLIP's Vision Transformer: the image encoder of the public Flamingo-type models; and SigLIP's.

Stands where the paper has its own NFNet-F6 (section 2.1), which was never released; the network is
Radford et al. 2021 (arXiv 2103.00020). OpenFlamingo was trained on the patch tokens before the last
norm, without the class token; IDEFICS on all tokens, class token first, before that norm. CLIP's
pooling and projection into the joint space are not part of the token path and are left out.

SigLIP's (Zhai et al. 2023, arXiv 2303.15343; SigLIP 2's of fixed size are the same) has no class
token and no norm before its blocks, a bias on its patches, and another epsilon in its norms. Its
patches leave over what is no whole one at the right and the bottom, as of 384 px cut by 14.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.core.attention import attend
from flamingo_jax.core.layers import Norm, Projection, embedding_rows, gelu, truncated_normal
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution, Stack, fold

Array = jax.Array
GeluKind = Literal["quick_gelu", "gelu", "gelu_tanh"]

CHANNELS, HEADS = "vision_channels", "vision_heads"  # logical axes


class Variant(NamedTuple):
    """What differs between the published sizes."""

    patch_px: int
    width: int
    depth: int
    num_heads: int
    activation: GeluKind  # OpenAI's weights want quick_gelu, LAION's and OpenCLIP's others gelu
    size_px: int = 224
    ffw_width: int | None = None  # None: four times the width
    family: Literal["clip", "siglip"] = "clip"

    @property
    def norm_eps(self) -> float:
        return 1e-6 if self.family == "siglip" else 1e-5

    @property
    def num_class_tokens(self) -> int:
        return int(self.family == "clip")


def _siglip(
    patch_px: int, width: int, depth: int, num_heads: int, ffw_width: int, size_px: int
) -> Variant:
    return Variant(patch_px, width, depth, num_heads, "gelu_tanh", size_px, ffw_width, "siglip")


VARIANTS = {
    "vit_b_32": Variant(32, 768, 12, 12, "quick_gelu"),
    "vit_b_16": Variant(16, 768, 12, 12, "quick_gelu"),
    "vit_s_16": Variant(16, 384, 12, 6, "gelu"),
    "vit_l_14": Variant(14, 1024, 24, 16, "quick_gelu"),
    "vit_h_14": Variant(14, 1280, 32, 16, "gelu"),
    "siglip_b_16": _siglip(16, 768, 12, 12, 3072, 224),
    "siglip_l_16": _siglip(16, 1024, 24, 16, 4096, 256),
    "siglip_so400m_14": _siglip(14, 1152, 27, 16, 4304, 384),
    "siglip_so400m_16": _siglip(16, 1152, 27, 16, 4304, 384),
    "thin": Variant(8, 32, 3, 4, "quick_gelu", 32),  # for tests
    "siglip_thin": _siglip(8, 32, 3, 4, 48, 36),  # likewise
}

GELU: dict[GeluKind, Callable[[Array], Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": gelu,
    "gelu_tanh": jax.nn.gelu,
}


class Attention(nnx.Module):
    """Self-attention of all tokens to all tokens, with biases."""

    def __init__(self, width: int, num_heads: int, *, rngs: Rngs):
        heads = (num_heads, width // num_heads)
        kwargs = {"use_bias": True, "rngs": rngs}
        self.query = Projection([width], heads, (CHANNELS, HEADS, None), **kwargs)
        self.key = Projection([width], heads, (CHANNELS, HEADS, None), **kwargs)
        self.value = Projection([width], heads, (CHANNELS, HEADS, None), **kwargs)
        self.out = Projection(heads, [width], (HEADS, None, CHANNELS), **kwargs)

    def __call__(self, x: Array) -> Array:  # [N, S, E]
        return self.out(attend(self.query(x), self.key(x), self.value(x)))


class Block(nnx.Module):
    """Pre-norm self-attention and feed-forward."""

    def __init__(self, variant: Variant, activation: GeluKind, *, rngs: Rngs):
        self.activation = activation
        width, eps = variant.width, variant.norm_eps
        hidden = variant.ffw_width or 4 * width
        kwargs = {"use_bias": True, "rngs": rngs}
        self.attention_norm = Norm(width, eps=eps)
        self.attention = Attention(width, variant.num_heads, rngs=rngs)
        self.ffw_norm = Norm(width, eps=eps)
        self.up = Projection([width], [hidden], (None, CHANNELS), **kwargs)
        self.down = Projection([hidden], [width], (None, CHANNELS), **kwargs)

    def __call__(self, x: Array) -> Array:  # [N, S, E]
        x = x + self.attention(self.attention_norm(x))
        return x + self.down(GELU[self.activation](self.up(self.ffw_norm(x))))


class ViT(nnx.Module):
    """[N, H, W, 3] normalised pictures of one size to [N, P, E] tokens, E = `width`."""

    def __init__(
        self,
        variant: str,
        *,
        keep_class_token: bool = False,  # as the first of the P tokens
        post_norm: bool = False,  # over every token, before it is used
        activation: GeluKind | None = None,  # None: the variant's
        size_px: int | None = None,  # None: the variant's; it sets the number of positions
        execution: Execution | None = None,  # None: scanned, no remat
        rngs: Rngs,
    ):
        if variant not in VARIANTS:
            raise ValueError(f"ViT variant {variant!r}: use one of {list(VARIANTS)}")
        v, execution = VARIANTS[variant], execution or Execution()
        activation = v.activation if activation is None else activation
        if activation not in GELU:
            raise ValueError(f"ViT activation={activation!r}: use one of {list(GELU)}")
        self.size_px = v.size_px if size_px is None else size_px
        self.patch_px, self.width = v.patch_px, v.width
        is_clip = v.family == "clip"
        if (is_clip and self.size_px % v.patch_px) or self.size_px < v.patch_px:
            raise ValueError(f"ViT size_px={self.size_px}: use a multiple of {v.patch_px}")
        if keep_class_token and not v.num_class_tokens:
            raise ValueError(f"ViT {variant} has no class token: set keep_class_token=False")
        self.num_left_out = v.num_class_tokens - keep_class_token  # tokens, the first ones
        shape = (v.patch_px, v.patch_px, 3, v.width)
        kernel = truncated_normal(rngs, shape, math.prod(shape[:3]))
        self.patch_embedding = nnx.Param(kernel, logical_axes=(None, None, None, CHANNELS))
        bias = None if is_clip else nnx.Param(jnp.zeros(v.width), logical_axes=(CHANNELS,))
        first = embedding_rows(1, v.width, rngs, columns=CHANNELS) if is_clip else None
        self.patch_bias, self.class_embedding = bias, first
        self.pre_norm = Norm(v.width) if is_clip else None
        num_positions = (self.size_px // v.patch_px) ** 2 + v.num_class_tokens
        self.position_embedding = embedding_rows(num_positions, v.width, rngs, columns=CHANNELS)
        self.blocks = Stack(lambda rngs: Block(v, activation, rngs=rngs), v.depth, execution, rngs)
        self.post_norm = Norm(v.width, eps=v.norm_eps) if post_norm else None

    def num_features(self, size_px: int) -> int:
        """P for square pictures of this size; ValueError where there are no positions for it."""
        self._check_size(size_px, size_px)
        return self.position_embedding.shape[0] - self.num_left_out

    def __call__(
        self,
        images: Array,  # [N, size_px, size_px, 3]
    ) -> Array:  # same dtype [N, P, E], row by row from the top left
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images are {list(images.shape)}, want [N, height, width, 3]")
        self._check_size(*images.shape[1:3])
        with jax.named_scope("vit"):
            x = self._embed(images)
            x = x if self.pre_norm is None else self.pre_norm(x)
            x, _ = fold(lambda x, blocks, _: (blocks[0](x), None), x, [self.blocks])
            x = x[:, self.num_left_out :]
            return x if self.post_norm is None else self.post_norm(x)

    def _embed(self, images: Array) -> Array:
        """Class token, where there is one, and patches [N, tokens, E], with their positions."""
        dtype = images.dtype
        patches = jax.lax.conv_general_dilated(
            images,
            self.patch_embedding[...].astype(dtype),
            (self.patch_px, self.patch_px),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        n, height, width, channels = patches.shape
        x = patches.reshape(n, height * width, channels)
        if self.patch_bias is not None:
            x = x + self.patch_bias[...].astype(dtype)
        if self.class_embedding is not None:
            first = jnp.broadcast_to(self.class_embedding[...].astype(dtype), (n, 1, channels))
            x = jnp.concatenate([first, x], axis=1)
        return x + self.position_embedding[...].astype(dtype)

    def _check_size(self, height: int, width: int) -> None:
        if (height, width) != (self.size_px, self.size_px):
            raise ValueError(
                f"pictures are {height} x {width}: this ViT has positions for {self.size_px} x "
                f"{self.size_px} px, so set preprocessing.size_px={self.size_px}"
            )
