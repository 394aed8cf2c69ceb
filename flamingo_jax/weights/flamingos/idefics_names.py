"""Tensors of IDEFICS's trained parts -> places in ours, as a plain table.

Linear maps lie (out, in) and have no biases; gates are one number, or one a channel.
"""

from collections.abc import Callable

import numpy as np

from flamingo_jax.config import FlamingoConfig
from flamingo_jax.weights.flamingos.open_flamingo_names import stacked
from flamingo_jax.weights.name_table import Path, Source

GATE = "model.gated_cross_attn_layers.{}.alpha_cross_attn"
_Table = dict[Path, Source | list[Source]]


def table(config: FlamingoConfig) -> _Table:
    """Where each parameter of the trained parts and of the new tokens comes from."""
    name = "model.perceiver_resampler"
    r = config.resampler
    found: _Table = {
        ("resampler", "latents"): _as_it_is(f"{name}.latents"),
        **{("resampler", *p): s for p, s in _layer_norm("norm", f"{name}.layer_norm").items()},
        **stacked(
            ("resampler", "blocks"),
            [_perceiver_layer(config, f"{name}.blocks.{i}") for i in range(r.depth)],
        ),
        ("new_tokens", "embedding"): _as_it_is("model.embed_tokens.additional_embedding.weight"),
        ("new_tokens", "head"): _as_it_is("lm_head.additional_fc.weight"),
    }
    num = config.language_model.num_layers // config.cross_attention.every
    gated = [_gated_block(config, f"model.gated_cross_attn_layers.{i}") for i in range(num)]
    return found | stacked(("gated_xattn", "groups"), gated)


def _perceiver_layer(config: FlamingoConfig, name: str) -> dict[Path, Source]:
    r = config.resampler
    attention, feed_forward = f"{name}.0", f"{name}.1"
    layer = {
        **_layer_norm("media_norm", f"{attention}.context_layer_norm"),
        **_layer_norm("latents_norm", f"{attention}.latents_layer_norm"),
        **_attention(attention, "output_proj", r.num_heads, r.head_dim),
        **_layer_norm("ffw_norm", f"{feed_forward}.ln"),
        ("ffw", "up", "kernel"): _turned(f"{feed_forward}.fc.weight"),
        ("ffw", "down", "kernel"): _turned(f"{feed_forward}.c_proj.weight"),
    }
    if r.qk_norm:
        layer |= _layer_norm("query_norm", f"{attention}.q_layer_norm")
        layer |= _layer_norm("key_norm", f"{attention}.k_layer_norm")
    return layer


def _gated_block(config: FlamingoConfig, name: str) -> dict[Path, Source]:
    x, attention = config.cross_attention, f"{name}.cross_attn"
    shape = (config.language_model.width,) if x.gate_per_channel else ()
    block = {
        ("norm", "scale"): _as_it_is(f"{name}.input_layernorm.weight"),
        **_attention(attention, "o_proj", x.num_heads, x.head_dim),
        ("attention_gate",): Source(f"{name}.alpha_cross_attn", lambda a: a.reshape(shape)),
        ("ffw_norm", "scale"): _as_it_is(f"{name}.post_attention_layernorm.weight"),
        **{
            ("ffw", part, "kernel"): _turned(f"{name}.mlp.{part}_proj.weight")
            for part in ("gate", "up", "down")
        },
        ("ffw_gate",): Source(f"{name}.alpha_dense", lambda a: a.reshape(shape)),
    }
    if x.qk_norm:
        block["query_norm", "scale"] = _as_it_is(f"{attention}.q_layer_norm.weight")
        block["key_norm", "scale"] = _as_it_is(f"{attention}.k_layer_norm.weight")
    return block


def _attention(name: str, out: str, num_heads: int, head_dim: int) -> dict[Path, Source]:
    def heads(a: np.ndarray) -> np.ndarray:
        return a.T.reshape(-1, num_heads, head_dim)

    def joined(a: np.ndarray) -> np.ndarray:
        return a.T.reshape(num_heads, head_dim, -1)

    projections: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
        "query": ("q_proj", heads),
        "key": ("k_proj", heads),
        "value": ("v_proj", heads),
        "out": (out, joined),
    }
    return {
        (ours, "kernel"): Source(f"{name}.{theirs}.weight", convert)
        for ours, (theirs, convert) in projections.items()
    }


def _layer_norm(ours: str, name: str) -> dict[Path, Source]:
    return {
        (ours, "scale"): _as_it_is(f"{name}.weight"),
        (ours, "bias"): _as_it_is(f"{name}.bias"),
    }


def _as_it_is(name: str) -> Source:
    return Source(name, lambda a: a)


def _turned(name: str) -> Source:
    return Source(name, lambda a: a.T)
