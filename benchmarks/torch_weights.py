"""Weights of `flamingo_jax` into the modules that its peers in PyTorch are made of.

The resamplers and gated blocks of flamingo-pytorch and of OpenFlamingo, which is based on it, name
their parts alike. Trees are those of unrolled stacks.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Tree = dict[str, Any]


@torch.no_grad()
def copy(parameter: Tensor, value: np.ndarray) -> None:
    """`value` into `parameter`; ValueError where it is of another shape."""
    if tuple(parameter.shape) != value.shape:
        raise ValueError(f"a weight of {list(value.shape)} for a place of {list(parameter.shape)}")
    parameter.copy_(torch.from_numpy(np.array(value)))


def matrix(projection: Tree, num_inputs: int) -> np.ndarray:
    """[out, in], as torch stores it, of a projection with `num_inputs` input dims."""
    kernel = projection["kernel"]
    rows = int(np.prod(kernel.shape[:num_inputs]))
    return kernel.reshape(rows, kernel.size // rows).T


def copy_linear(linear: nn.Linear, tree: Tree, num_inputs: int = 1) -> None:
    """Kernel, and bias where there is one."""
    copy(linear.weight, matrix(tree, num_inputs))
    if linear.bias is not None:
        copy(linear.bias, tree["bias"])


def copy_norm(norm: nn.Module, tree: Tree) -> None:
    """Scale, and bias where there is one."""
    copy(norm.weight, tree["scale"])
    if getattr(norm, "bias", None) is not None:
        copy(norm.bias, tree["bias"])


def copy_resampler(resampler: nn.Module, tree: Tree) -> None:
    """Everything but embeddings of frames or media, which each resampler has of its own kind."""
    copy(resampler.latents, tree["latents"])
    copy_norm(resampler.norm, tree["norm"])
    for i, (attention, feed_forward) in enumerate(resampler.layers):
        layer = tree["blocks"][f"layer_{i:03d}"]
        if "media_norm" in layer:
            copy_norm(attention.norm_media, layer["media_norm"])
        copy_norm(attention.norm_latents, layer["latents_norm"])
        _copy_attention(attention, layer)
        _copy_feed_forward(feed_forward, layer)


def copy_gated_block(block: nn.Module, tree: Tree) -> None:
    """A `GatedCrossAttentionBlock`; a norm on the media is not part of it."""
    copy_norm(block.attn.norm, tree["norm"])
    _copy_attention(block.attn, tree)
    _copy_feed_forward(block.ff, tree)
    copy(block.attn_gate, tree["attention_gate"][None])
    copy(block.ff_gate, tree["ffw_gate"][None])


def _copy_attention(attention: nn.Module, tree: Tree) -> None:
    copy_linear(attention.to_q, tree["query"])
    copy(attention.to_kv.weight, np.concatenate([matrix(tree[n], 1) for n in ("key", "value")]))
    copy_linear(attention.to_out, tree["out"], 2)


def _copy_feed_forward(feed_forward: nn.Sequential, tree: Tree) -> None:
    copy_norm(feed_forward[0], tree["ffw_norm"])
    copy_linear(feed_forward[1], tree["ffw"]["up"])
    copy_linear(feed_forward[3], tree["ffw"]["down"])
