"""Tensors of OpenFlamingo's trained parts -> places in ours, as a plain table.

Names are those of `open_flamingo_checkpoint`. Linear maps lie (out, in) and have no biases; keys
and values are one tensor.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from flamingo_jax.config import FlamingoConfig
from flamingo_jax.models import insertion
from flamingo_jax.weights.name_table import Path, Source


class Family(NamedTuple):
    """Where a language model keeps what an OpenFlamingo checkpoint has of it, or stands beside."""

    layers: str
    embedding: str
    head: str | None = None  # None: never a tensor of its own
    positions: str | None = None


FAMILIES = {  # by `model_type`
    "mpt": Family("transformer.blocks", "transformer.wte"),
    "mosaic_gpt": Family("transformer.blocks", "transformer.wte"),
    "gpt_neox": Family("gpt_neox.layers", "gpt_neox.embed_in", "embed_out"),
    "opt": Family(
        "model.decoder.layers",
        "model.decoder.embed_tokens",
        "lm_head",
        "model.decoder.embed_positions",
    ),
    "llama": Family("model.layers", "model.embed_tokens", "lm_head"),
}


def table(config: FlamingoConfig) -> dict[Path, Source | list[Source]]:
    """Where each parameter of the resampler and the gated blocks comes from."""
    r, x = config.resampler, config.cross_attention
    layers = [
        {
            **_norm("media_norm", f"perceiver.layers.{i}.0.norm_media"),
            **_norm("latents_norm", f"perceiver.layers.{i}.0.norm_latents"),
            **_attention(f"perceiver.layers.{i}.0", r.num_heads, r.head_dim),
            **_feed_forward(f"perceiver.layers.{i}.1"),
        }
        for i in range(r.depth)
    ]
    found: dict[Path, Source | list[Source]] = {
        ("resampler", "latents"): Source("perceiver.latents", lambda a: a),
        **{("resampler", *p): s for p, s in _norm("norm", "perceiver.norm").items()},
        **stacked(("resampler", "blocks"), layers),
    }
    for segment in insertion.cross_attention_segments(config):
        numbers = [segment.start + i * segment.depth for i in range(segment.repeats)]
        layers = [
            {
                **_norm("norm", f"gated.{i}.attn.norm"),
                **_attention(f"gated.{i}.attn", x.num_heads, x.head_dim),
                **_feed_forward(f"gated.{i}.ff"),
                ("attention_gate",): Source(f"gated.{i}.attn_gate", _scalar),
                ("ffw_gate",): Source(f"gated.{i}.ff_gate", _scalar),
            }
            for i in numbers
        ]
        found |= stacked(("gated_xattn", segment.name), layers)
    return found


def stacked(path: Path, layers: list[Mapping[Path, Source]]) -> dict[Path, list[Source]]:
    """The tables of layers as one of a scanned stack."""
    return {(*path, "layers", *p): [layer[p] for layer in layers] for p in layers[0]}


def _scalar(gate: np.ndarray) -> np.ndarray:
    return gate.reshape(())


def _norm(ours: str, name: str) -> dict[Path, Source]:
    return {
        (ours, "scale"): Source(f"{name}.weight", lambda a: a),
        (ours, "bias"): Source(f"{name}.bias", lambda a: a),
    }


def _attention(name: str, num_heads: int, head_dim: int) -> dict[Path, Source]:
    """Keys are the first half of the rows of `to_kv`, values the second."""

    def heads(part: int, parts: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda a: np.split(a, parts)[part].T.reshape(-1, num_heads, head_dim)

    return {
        ("query", "kernel"): Source(f"{name}.to_q.weight", heads(0, 1)),
        ("key", "kernel"): Source(f"{name}.to_kv.weight", heads(0, 2)),
        ("value", "kernel"): Source(f"{name}.to_kv.weight", heads(1, 2)),
        ("out", "kernel"): Source(
            f"{name}.to_out.weight", lambda a: a.T.reshape(num_heads, head_dim, -1)
        ),
    }


def _feed_forward(name: str) -> dict[Path, Source]:
    return {
        **_norm("ffw_norm", f"{name}.0"),
        ("ffw", "up", "kernel"): Source(f"{name}.1.weight", lambda a: a.T),
        ("ffw", "down", "kernel"): Source(f"{name}.3.weight", lambda a: a.T),
    }
