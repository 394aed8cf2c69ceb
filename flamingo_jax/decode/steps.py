"""Prefill and one decoding step of a Flamingo: pure functions of parameters and state."""

import jax
import jax.numpy as jnp

from flamingo_jax.batch import Batch
from flamingo_jax.core.partition import constrain
from flamingo_jax.decode.cache import CACHE_AXES, MEDIA_AXES, DecodeState, empty_cache
from flamingo_jax.models import media_mask
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.models.lm_block import Cache

Array = jax.Array


def prefill(model: Flamingo, prompt: Batch, max_new_tokens: int) -> tuple[Array, DecodeState]:
    """f32[B, V] logits of the first new token, and the state with the prompt in it.

    `prompt` is padded on the left (see `decode.prompt_batch`).
    """
    b, t = prompt.tokens.shape
    num_slots = t + max_new_tokens
    prompt_mask = jnp.asarray(prompt.token_mask)
    lm = model.language_model
    lm.check_length(num_slots)
    cache = empty_cache(lm.config, model.segments, b, num_slots, jnp.dtype(model.dtype))
    keys = model.media_keys(model.visual_tokens(prompt.media, prompt.media_mask))
    keys = jax.tree.map(lambda x: constrain(x, *MEDIA_AXES), keys)
    real_media = jnp.asarray(prompt.media_mask).any(-1)
    mask = _mask(model, prompt.media_index, real_media)
    context = lm.context(prompt_mask)  # of the prompt alone: the slots behind it are empty
    hidden, cache = model.decode(prompt.tokens, context, keys, mask, cache)
    state = DecodeState(
        _laid_out(cache),
        keys,
        jnp.asarray(prompt.media_index)[:, -1],
        real_media,
        jnp.pad(prompt_mask, [(0, 0), (0, max_new_tokens)]),
        jnp.asarray(t, jnp.int32),
    )
    return _whole_rows(model.logits(hidden[:, -1:])), state


def step(model: Flamingo, tokens: Array, state: DecodeState) -> tuple[Array, DecodeState]:
    """f32[B, V] logits after one more token a row, i32[B], which sees the prompt's last media."""
    slot_mask = jax.lax.dynamic_update_slice_in_dim(
        state.slot_mask, jnp.ones((tokens.shape[0], 1), bool), state.index, axis=1
    )
    context = model.language_model.context(slot_mask, state.index, 1, side_by_side=True)
    mask = _mask(model, state.media_index[:, None], state.media_mask)
    hidden, cache = model.decode(tokens[:, None], context, state.media_keys, mask, state.cache)
    cache = _laid_out(cache)
    state = state._replace(cache=cache, slot_mask=slot_mask, index=state.index + 1)
    return _whole_rows(model.logits(hidden)), state


def _mask(model: Flamingo, media_index: Array, real_media: Array) -> Array:
    attend = model.config.cross_attention.attend
    return media_mask.text_media_mask(jnp.asarray(media_index), real_media, attend)


def _laid_out(cache: dict[str, Cache]) -> dict[str, Cache]:
    """Cut as it was, whatever the compiler would make of it between two steps."""
    return jax.tree.map(lambda x: constrain(x, *CACHE_AXES), cache)


def _whole_rows(logits: Array) -> Array:
    """f32[B, V] of f32[B, 1, V], made cut over the vocabulary: who picks a token sees all of it."""
    return constrain(logits[:, 0], "batch", None)
