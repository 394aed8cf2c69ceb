"""The trained parts of a Flamingo here -> the tensors of an OpenFlamingo checkpoint.

The inverse of `open_flamingo`: what its own filter would leave, under v2's names. Rows of the
embedding that are not new are the language model's own.
"""

import pathlib
from collections.abc import Iterator

import numpy as np

from flamingo_jax.config import FlamingoConfig
from flamingo_jax.models import insertion
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights.encoders import clip_tower
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.flamingos import embedding_tables, open_flamingo
from flamingo_jax.weights.flamingos.conversion import Tree
from flamingo_jax.weights.flamingos.open_flamingo_names import FAMILIES

Tensors = Iterator[tuple[str, np.ndarray]]


def check(
    config: FlamingoConfig,
    tokenizer: Tokenizer,
    family: str,
    num_ids: int,  # of the language model's own tokenizer, behind which its code puts new ones
) -> None:
    """ValueError for a model that OpenFlamingo's code does not compute, with what is in the way."""
    v, r, x = config.vision, config.resampler, config.cross_attention
    pictures, clips = v.preprocessing, clip_tower.PREPROCESSING
    wanted = {
        "vision.kind": (v.kind, "vit"),
        "vision.keep_class_token": (v.keep_class_token, False),
        "vision.aligned_width": (v.aligned_width, None),
        "vision.preprocessing.fit": (pictures.fit, "crop"),
        "vision.preprocessing.mean": (pictures.mean, clips.mean),
        "vision.preprocessing.std": (pictures.std, clips.std),
        "resampler.kind": (r.kind, "perceiver"),
        "resampler.activation": (r.activation, "gelu"),
        "resampler.normalize_media": (r.normalize_media, True),
        "resampler.num_frames": (r.num_frames, 0),
        "resampler.qk_norm": (r.qk_norm, False),
        "resampler.num_latents": (r.num_latents, 64),
        "resampler.depth": (r.depth, 6),
        "resampler.num_heads": (r.num_heads, open_flamingo.HEADS),
        "resampler.head_dim": (r.head_dim, 64),
        "resampler.ffw_multiplier": (r.ffw_multiplier, 4),
        "resampler.width": (r.width, v.width),
        "cross_attention.kind": (x.kind, "gated"),
        "cross_attention.gating": (x.gating, "tanh"),
        "cross_attention.activation": (x.activation, "gelu"),
        "cross_attention.normalize_media": (x.normalize_media, False),
        "cross_attention.num_heads": (x.num_heads, open_flamingo.HEADS),
        "cross_attention.head_dim": (x.head_dim, 64),
        "cross_attention.ffw_multiplier": (x.ffw_multiplier, 4),
        "cross_attention.offset": (x.offset, x.every - 1),
        "cross_attention.media_width": (x.media_width, None),
        "cross_attention.branch_scale": (x.branch_scale, 1.0),
        "cross_attention.attend": (x.attend, "last"),
        "cross_attention.norm": (x.norm, "layernorm"),
        "cross_attention.norm_eps": (x.norm_eps, 1e-5),
        "cross_attention.qk_norm": (x.qk_norm, False),
        "cross_attention.gated_ffw": (x.gated_ffw, False),
        "cross_attention.ffw_width": (x.ffw_width, None),
        "cross_attention.gate_per_channel": (x.gate_per_channel, False),
        "language_model.vocab_size": (tokenizer.base_vocab_size, num_ids),
    }
    for name, (value, want) in wanted.items():
        if value != want:
            raise ValueError(f"{name}={value}: OpenFlamingo computes with {want}, and nothing else")
    if family not in FAMILIES:
        raise ValueError(f"a language model of the family {family}: use one of {[*FAMILIES]}")
    names = open_flamingo.NEW_TOKENS
    if {*tokenizer.new_tokens} not in ({*names[:2]}, {*names}):
        raise ValueError(f"new tokens {list(tokenizer.new_tokens)}: OpenFlamingo has {list(names)}")


def tensors(
    config: FlamingoConfig,
    params: Tree,  # resampler, gated_xattn, new_tokens
    tokenizer: Tokenizer,
    lm_path: pathlib.Path,
    family: str,
) -> Tensors:
    """Names and tensors, in the dtype of `params`."""
    known = FAMILIES[family]
    base = embedding_tables.read(lm_path, family)
    new, tied = params["new_tokens"], config.language_model.tied_head
    order = [name for name in open_flamingo.NEW_TOKENS if name in tokenizer.new_tokens]
    rows = [tokenizer.new_tokens.index(name) for name in order]

    def table(kind: str) -> np.ndarray:
        if kind not in base:
            raise BadWeightsFile(f"{lm_path} has no {kind} among its tensors: copy it anew")
        own = base[kind][: tokenizer.base_vocab_size].astype(new[kind].dtype)
        return np.concatenate([own, new[kind][rows]])

    yield f"lang_encoder.{known.embedding}.weight", table("embedding")
    if known.head is not None:
        yield f"lang_encoder.{known.head}.weight", table("embedding" if tied else "head")
    if known.positions is not None:
        positions = base["positions"].astype(new["embedding"].dtype)
        yield f"lang_encoder.{known.positions}.weight", positions
    yield from _resampler(params["resampler"], config.resampler.depth)
    for segment in insertion.cross_attention_segments(config):
        stack = params["gated_xattn"][segment.name]["layers"]
        for i in range(segment.repeats):
            number = segment.start + i * segment.depth
            name = f"lang_encoder.{known.layers}.{number}.gated_cross_attn_layer"
            yield from _gated(_layer(stack, i), name)


def _resampler(tree: Tree, depth: int) -> Tensors:
    yield "perceiver.latents", tree["latents"]
    for i in range(depth):
        layer, name = _layer(tree["blocks"]["layers"], i), f"perceiver.layers.{i}"
        yield from _norm(layer["media_norm"], f"{name}.0.norm_media")
        yield from _norm(layer["latents_norm"], f"{name}.0.norm_latents")
        yield from _attention(layer, f"{name}.0")
        yield from _feed_forward(layer, f"{name}.1")
    yield from _norm(tree["norm"], "perceiver.norm")


def _gated(layer: Tree, name: str) -> Tensors:
    yield f"{name}.attn_gate", layer["attention_gate"].reshape(1)
    yield f"{name}.ff_gate", layer["ffw_gate"].reshape(1)
    yield from _norm(layer["norm"], f"{name}.attn.norm")
    yield from _attention(layer, f"{name}.attn")
    yield from _feed_forward(layer, f"{name}.ff")


def _layer(stack: Tree, i: int) -> Tree:
    return {k: _layer(v, i) if isinstance(v, dict) else v[i] for k, v in stack.items()}


def _norm(tree: Tree, name: str) -> Tensors:
    yield f"{name}.weight", tree["scale"]
    yield f"{name}.bias", tree["bias"]


def _attention(layer: Tree, name: str) -> Tensors:
    query, key, value = (_rows(layer[part]["kernel"], 1) for part in ("query", "key", "value"))
    yield f"{name}.to_q.weight", query
    yield f"{name}.to_kv.weight", np.concatenate([key, value])
    yield f"{name}.to_out.weight", _rows(layer["out"]["kernel"], 2)


def _feed_forward(layer: Tree, name: str) -> Tensors:
    yield from _norm(layer["ffw_norm"], f"{name}.0")
    yield f"{name}.1.weight", layer["ffw"]["up"]["kernel"].T
    yield f"{name}.3.weight", layer["ffw"]["down"]["kernel"].T


def _rows(kernel: np.ndarray, num_inputs: int) -> np.ndarray:
    """[out, in] of a kernel with `num_inputs` input dims."""
    inputs = int(np.prod(kernel.shape[:num_inputs]))
    return kernel.reshape(inputs, -1).T
