"""Floating-point operations of one training step, counted from the config.

Only matrix products count, 2 operations a multiply-add; what a frozen part needs is forward, plus
the gradient of its activations above the lowest trained part, and never that of its weights. That
part is the lowest gated block, or the new tokens' rows where they are trained as inputs. A trained
weight costs two more passes. What remat computes again does not count.
"""

from collections.abc import Iterable
from typing import Protocol

from flamingo_jax.config import FlamingoConfig


class Dataset(Protocol):
    """What one dataset contributes to a step."""

    batch_size: int
    num_tokens: int
    max_media: int
    kind: str


def train_step(config: FlamingoConfig, datasets: Iterable[Dataset]) -> float:
    """FLOPs of one update that visits every dataset; without the vision encoder."""
    total = 0.0
    for d in datasets:
        media = d.max_media if d.kind == "page" else 1
        total += d.batch_size * sequence(config, d.num_tokens, media)
    return total


def sequence(config: FlamingoConfig, num_tokens: int, num_media: int) -> float:
    """FLOPs of one training sequence of images, without the vision encoder."""
    lm, xattn, r = config.language_model, config.cross_attention, config.resampler
    gated = -(-(lm.num_layers - xattn.offset) // xattn.every)
    above = lm.num_layers - (0 if config.train_new_inputs else xattn.offset)
    block = _lm_block_weights(config) * num_tokens
    scores = _attention(num_tokens, num_tokens, lm.num_heads * lm.head_dim)
    head = lm.width * config.vocab_size * num_tokens
    keys = num_media * r.num_latents
    inner = xattn.num_heads * xattn.head_dim
    gate = 2 * lm.width * (inner + xattn.ffw_multiplier * lm.width) * num_tokens
    gate += 2 * r.width * inner * keys
    gate_scores = _attention(num_tokens, keys, inner)
    forward = lm.num_layers * (block + scores) + head + gated * (gate + gate_scores)
    # Attention has two products of activations, each with a gradient to both its sides.
    backward = above * (block + 2 * scores) + head + 2 * gated * (gate + gate_scores)
    return 2 * (forward + backward + num_media * (3 * _resampler(config) + 2 * _project(config)))


def _lm_block_weights(config: FlamingoConfig) -> int:
    lm = config.language_model
    attention = 2 * lm.width * lm.head_dim * (lm.num_heads + lm.kv_heads)
    return attention + (3 if lm.gated_ffw else 2) * lm.width * lm.ffw_width


def _attention(num_queries: int, num_keys: int, inner: int) -> int:
    return 2 * num_queries * num_keys * inner


def _project(config: FlamingoConfig) -> int:
    """Of the features to the resampler's width; they need no gradient, so two passes in all."""
    r, v = config.resampler, config.vision
    return v.num_features * v.width * r.width if v.width != r.width else 0


def _resampler(config: FlamingoConfig) -> int:
    r, p = config.resampler, config.vision.num_features
    inner = r.num_heads * r.head_dim
    layer = r.width * inner * (2 * r.num_latents + 2 * (p + r.num_latents))
    layer += _attention(r.num_latents, p + r.num_latents, inner)
    layer += 2 * r.num_latents * r.ffw_multiplier * r.width**2
    return r.depth * layer
