"""What decoding keeps: self-attention keys and values by slot, and the media's, read only.

Prompts are padded on the left, so that slot s is the same step of every row and one index serves
the whole batch. On a mesh all of it is cut by rows and by heads, as attention is.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from flamingo_jax.config import FlamingoConfig, LanguageModelConfig
from flamingo_jax.core.partition import constrain
from flamingo_jax.core.stack import Segment
from flamingo_jax.models.gated_xattn import MediaKeys
from flamingo_jax.models.insertion import cross_attention_segments
from flamingo_jax.models.lm_block import Cache

Array = jax.Array

CACHE_AXES = (None, None, "batch", None, "kv_heads", None)  # of its leaves, to be cut by
MEDIA_AXES = (None, "batch", None, "heads", None)


class DecodeState(NamedTuple):
    """Everything the next step needs; leaves are updated in place when donated."""

    cache: dict[str, Cache]  # by segment, [repeats, depth, B, S, K, H]
    media_keys: dict[str, MediaKeys]  # by gated segment, [repeats, B, M * R, N, H]
    media_index: Array  # i32[B], the media the new tokens see: the prompt's last
    media_mask: Array  # bool[B, M]
    slot_mask: Array  # bool[B, S], slots with a real token
    index: Array  # i32[], the next free slot


def row_bytes(config: FlamingoConfig, num_slots: int, num_media: int, dtype: str) -> int:
    """What one row of a batch keeps, with so many tokens, those to come too, and media."""
    lm, xattn = config.language_model, config.cross_attention
    layers = lm.num_layers + (xattn.graft_depth if xattn.kind == "graft" else 0)
    looks = sum(segment.repeats for segment in cross_attention_segments(config))
    each = config.vision.num_features if config.resampler.kind == "mlp" else None
    visual = num_media * (each or config.resampler.num_latents)
    slots = layers * num_slots * lm.kv_heads * lm.head_dim
    media = looks * visual * xattn.num_heads * xattn.head_dim
    return 2 * (slots + media) * jnp.dtype(dtype).itemsize


def empty_cache(
    config: LanguageModelConfig,
    segments: tuple[Segment, ...],
    batch_size: int,
    num_slots: int,
    dtype: jnp.dtype,
) -> dict[str, Cache]:
    """Zeros for `num_slots` tokens of every layer."""
    shape = (batch_size, num_slots, config.kv_heads, config.head_dim)

    def zeros(s: Segment) -> Array:
        return constrain(jnp.zeros((s.repeats, s.depth, *shape), dtype), *CACHE_AXES)

    return {s.name: Cache(zeros(s), zeros(s)) for s in segments}
