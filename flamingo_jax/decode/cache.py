"""What decoding keeps: keys and values of the prompt and of its media, and of what is written.

Of a prompt there is one row, which all beams that go on from it read; what they write are rows of
their own, R of them for B prompts. Prompts are padded on the left, so that slot s is the same step
of every row and one index serves the whole batch. On a mesh all of it is cut by rows and by heads,
as attention is.
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
    """Everything the next step needs; only `cache` and `index` change."""

    prompt: dict[str, Cache]  # by segment, [repeats, depth, B, P, K, H]
    prompt_mask: Array  # bool[B, P], slots with a real token
    media_keys: dict[str, MediaKeys]  # by gated segment, [repeats, B, M * L, N, H], L latents
    media_mask: Array  # bool[B, M]
    media_index: Array  # i32[B], the media the new tokens see: the prompt's last
    cache: dict[str, Cache]  # of the tokens written, [repeats, depth, R, S, K, H]
    index: Array  # i32[], the next free slot of it

    @property
    def num_slots(self) -> int:
        """S."""
        return next(iter(self.cache.values())).key.shape[3]


def token_bytes(config: FlamingoConfig, dtype: str) -> int:
    """What each token of a row keeps."""
    lm, xattn = config.language_model, config.cross_attention
    layers = lm.num_layers + (xattn.graft_depth if xattn.kind == "graft" else 0)
    return 2 * layers * lm.kv_heads * lm.head_dim * jnp.dtype(dtype).itemsize


def media_bytes(config: FlamingoConfig, dtype: str) -> int:
    """What each picture or video of a prompt keeps."""
    xattn = config.cross_attention
    looks = sum(segment.repeats for segment in cross_attention_segments(config))
    each = config.vision.num_features if config.resampler.kind == "mlp" else None
    visual = each or config.resampler.num_latents
    return 2 * looks * visual * xattn.num_heads * xattn.head_dim * jnp.dtype(dtype).itemsize


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
