"""Weights of `flamingo_jax` into OpenFlamingo's model around MPT and an open_clip tower.

Trees are those of unrolled stacks. What OpenFlamingo lacks must not be there: a norm on the media,
frame embeddings.
"""

import numpy as np
from torch import nn

from benchmarks.torch_weights import (
    Tree,
    copy,
    copy_gated_block,
    copy_linear,
    copy_norm,
    copy_resampler,
    matrix,
)
from flamingo_jax.config import FlamingoConfig
from flamingo_jax.core.stack import plan


def copy_weights(model: nn.Module, config: FlamingoConfig, trainable: Tree, frozen: Tree) -> None:
    """Takes the weights of `flamingo_jax`, as trees of unrolled stacks."""
    lm, mpt = frozen["language_model"], model.lang_encoder.transformer
    table = np.concatenate([lm["embedding"], trainable["new_tokens"]["embedding"]])
    copy(mpt.wte.weight, table)
    copy_norm(mpt.norm_f, lm["final_norm"])
    xattn = config.cross_attention
    layers = iter(mpt.blocks)
    for segment in plan(config.language_model.num_layers, xattn.every, xattn.offset):
        for i in range(segment.repeats):
            group = f"layer_{i:03d}"
            for j in range(segment.depth):
                layer = next(layers)
                tree = lm["blocks"][segment.name][group][f"layer_{j:03d}"]
                _copy_mpt_layer(layer.decoder_layer, tree)
                if segment.gated and j == 0:
                    tree = trainable["gated_xattn"][segment.name][group]
                    copy_gated_block(layer.gated_cross_attn_layer, tree)
    copy_resampler(model.perceiver, trainable["resampler"])
    _copy_clip(model.vision_encoder, frozen["vision"]["encoder"])


def _copy_mpt_layer(layer: nn.Module, tree: Tree) -> None:
    attention = tree["attention"]
    qkv = [matrix(attention[name], 1) for name in ("query", "key", "value")]
    copy(layer.attn.Wqkv.weight, np.concatenate(qkv))
    copy_linear(layer.attn.out_proj, attention["out"], 2)
    copy_norm(layer.norm_1, tree["attention_norm"])
    copy_norm(layer.norm_2, tree["ffw_norm"])
    copy_linear(layer.ffn.up_proj, tree["ffw"]["up"])
    copy_linear(layer.ffn.down_proj, tree["ffw"]["down"])


def _copy_clip(tower: nn.Module, tree: Tree) -> None:
    copy(tower.class_embedding, tree["class_embedding"][0])
    copy(tower.positional_embedding, tree["position_embedding"])
    copy(tower.conv1.weight, tree["patch_embedding"].transpose(3, 2, 0, 1))
    copy_norm(tower.ln_pre, tree["pre_norm"])
    copy_norm(tower.ln_post, tree["post_norm"])
    for i, block in enumerate(tower.transformer.resblocks):
        layer = tree["blocks"][f"layer_{i:03d}"]
        parts = [layer["attention"][name] for name in ("query", "key", "value")]
        weights = [matrix(part, 1) for part in parts]
        copy(block.attn.in_proj_weight, np.concatenate(weights))
        biases = [part["bias"].ravel() for part in parts]
        copy(block.attn.in_proj_bias, np.concatenate(biases))
        copy_linear(block.attn.out_proj, layer["attention"]["out"], 2)
        copy_norm(block.ln_1, layer["attention_norm"])
        copy_norm(block.ln_2, layer["ffw_norm"])
        copy_linear(block.mlp.c_fc, layer["up"])
        copy_linear(block.mlp.c_proj, layer["down"])
