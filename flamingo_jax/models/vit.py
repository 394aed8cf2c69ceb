"""CLIP's Vision Transformer: the image encoder of the public Flamingo-type models.

Stands where the paper has its own NFNet-F6 (section 2.1), which was never released; the network is
Radford et al. 2021 (arXiv 2103.00020). OpenFlamingo was trained on the patch tokens before the last
norm, without the class token; IDEFICS on all tokens, class token first, before that norm. CLIP's
pooling and projection into the joint space are not part of the token path and are left out.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.core.attention import attend
from flamingo_jax.core.layers import Norm, Projection, embedding_rows, gelu, truncated_normal
from flamingo_jax.core.stack import Execution, Stack, fold

Array = jax.Array
GeluKind = Literal["quick_gelu", "gelu"]

CHANNELS, HEADS = "vision_channels", "vision_heads"  # logical axes


class Variant(NamedTuple):
    """What differs between the published sizes; the feed-forward is four times as wide."""

    patch_px: int
    width: int
    depth: int
    num_heads: int
    activation: GeluKind  # OpenAI's weights want quick_gelu, LAION's and OpenCLIP's others gelu
    size_px: int = 224


VARIANTS = {
    "vit_b_32": Variant(32, 768, 12, 12, "quick_gelu"),
    "vit_b_16": Variant(16, 768, 12, 12, "quick_gelu"),
    "vit_s_16": Variant(16, 384, 12, 6, "gelu"),
    "vit_l_14": Variant(14, 1024, 24, 16, "quick_gelu"),
    "vit_h_14": Variant(14, 1280, 32, 16, "gelu"),
    "thin": Variant(8, 32, 3, 4, "quick_gelu", 32),  # for tests
}

GELU: dict[GeluKind, Callable[[Array], Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": gelu,
}


class Attention(nnx.Module):
    """Self-attention of all tokens to all tokens, with biases."""

    def __init__(self, width: int, num_heads: int, *, rngs: nnx.Rngs):
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

    def __init__(self, width: int, num_heads: int, activation: GeluKind, *, rngs: nnx.Rngs):
        self.activation = activation
        kwargs = {"use_bias": True, "rngs": rngs}
        self.attention_norm = Norm(width)
        self.attention = Attention(width, num_heads, rngs=rngs)
        self.ffw_norm = Norm(width)
        self.up = Projection([width], [4 * width], (None, CHANNELS), **kwargs)
        self.down = Projection([4 * width], [width], (None, CHANNELS), **kwargs)

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
        rngs: nnx.Rngs,
    ):
        if variant not in VARIANTS:
            raise ValueError(f"ViT variant {variant!r}: use one of {list(VARIANTS)}")
        v, execution = VARIANTS[variant], execution or Execution()
        activation = v.activation if activation is None else activation
        if activation not in GELU:
            raise ValueError(f"ViT activation={activation!r}: use one of {list(GELU)}")
        self.size_px = v.size_px if size_px is None else size_px
        self.patch_px, self.width = v.patch_px, v.width
        if self.size_px % v.patch_px or self.size_px < v.patch_px:
            raise ValueError(f"ViT size_px={self.size_px}: use a multiple of {v.patch_px}")
        self.keep_class_token = keep_class_token
        shape = (v.patch_px, v.patch_px, 3, v.width)
        kernel = truncated_normal(rngs, shape, math.prod(shape[:3]))
        self.patch_embedding = nnx.Param(kernel, logical_axes=(None, None, None, CHANNELS))
        self.class_embedding = embedding_rows(1, v.width, rngs, columns=CHANNELS)
        num_positions = (self.size_px // v.patch_px) ** 2 + 1
        self.position_embedding = embedding_rows(num_positions, v.width, rngs, columns=CHANNELS)
        self.pre_norm = Norm(v.width)
        self.blocks = Stack(
            lambda rngs: Block(v.width, v.num_heads, activation, rngs=rngs),
            v.depth,
            execution,
            rngs,
        )
        self.post_norm = Norm(v.width) if post_norm else None

    def num_features(self, size_px: int) -> int:
        """P for square pictures of this size; ValueError where there are no positions for it."""
        self._check_size(size_px, size_px)
        return (size_px // self.patch_px) ** 2 + self.keep_class_token

    def __call__(
        self,
        images: Array,  # [N, size_px, size_px, 3]
    ) -> Array:  # same dtype [N, P, E], row by row from the top left
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images are {list(images.shape)}, want [N, height, width, 3]")
        self._check_size(*images.shape[1:3])
        with jax.named_scope("vit"):
            x = self.pre_norm(self._embed(images))
            x, _ = fold(lambda x, blocks, _: (blocks[0](x), None), x, [self.blocks])
            if not self.keep_class_token:
                x = x[:, 1:]
            return x if self.post_norm is None else self.post_norm(x)

    def _embed(self, images: Array) -> Array:
        """Class token and patches [N, 1 + patches, E], with their positions."""
        dtype = images.dtype
        patches = jax.lax.conv_general_dilated(
            images,
            self.patch_embedding[...].astype(dtype),
            (self.patch_px, self.patch_px),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        n, height, width, channels = patches.shape
        patches = patches.reshape(n, height * width, channels)
        first = jnp.broadcast_to(self.class_embedding[...].astype(dtype), (n, 1, channels))
        x = jnp.concatenate([first, patches], axis=1)
        return x + self.position_embedding[...].astype(dtype)

    def _check_size(self, height: int, width: int) -> None:
        if (height, width) != (self.size_px, self.size_px):
            raise ValueError(
                f"pictures are {height} x {width}: this ViT has positions for {self.size_px} x "
                f"{self.size_px} px, so set preprocessing.size_px={self.size_px}"
            )
