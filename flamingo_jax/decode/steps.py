"""Prefill and one decoding step of a Flamingo: pure functions of parameters and state."""

import functools

import jax
import jax.numpy as jnp

from flamingo_jax.batch import Batch
from flamingo_jax.core.partition import constrain
from flamingo_jax.decode.cache import CACHE_AXES, MEDIA_AXES, DecodeState, empty_cache
from flamingo_jax.models import media_mask
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.models.lm_block import Cache

Array = jax.Array


def prefill(
    model: Flamingo, prompt: Batch, max_new_tokens: int, beams: int = 1
) -> tuple[Array, DecodeState]:
    """f32[B, V] logits of the first new token, and the state with the prompt in it.

    `prompt` is padded on the left (see `decode.prompt_batch`); so many rows will go on from each.
    """
    b, t = prompt.tokens.shape
    prompt_mask = jnp.asarray(prompt.token_mask)
    lm = model.language_model
    lm.check_length(t + max_new_tokens)
    dtype = jnp.dtype(model.dtype)
    cache = empty_cache(lm.config, model.segments, b, t, dtype)
    keys = model.media_keys(model.visual_tokens(prompt.media, prompt.media_mask))
    keys = jax.tree.map(lambda x: constrain(x, *MEDIA_AXES), keys)
    real_media = jnp.asarray(prompt.media_mask).any(-1)
    mask = _mask(model, prompt.media_index, real_media)
    context = lm.context(prompt_mask)
    hidden, cache = model.decode(prompt.tokens, context, keys, mask, cache)
    state = DecodeState(
        prompt=_laid_out(cache),
        prompt_mask=prompt_mask,
        media_keys=keys,
        media_mask=real_media,
        media_index=jnp.asarray(prompt.media_index)[:, -1],
        cache=empty_cache(lm.config, model.segments, beams * b, max_new_tokens, dtype),
        index=jnp.zeros((), jnp.int32),
    )
    return _whole_rows(model.logits(hidden[:, -1:])), state


def step(model: Flamingo, tokens: Array, state: DecodeState) -> tuple[Array, DecodeState]:
    """f32[R, V] logits after one more token a row, i32[R], which sees the prompt's last media."""
    rows, (b, prompt_slots) = tokens.shape[0], state.prompt_mask.shape
    beams = functools.partial(jnp.repeat, repeats=rows // b, axis=0)
    written = jnp.broadcast_to(jnp.arange(state.num_slots) <= state.index, (rows, state.num_slots))
    slot_mask = jnp.concatenate([beams(state.prompt_mask), written], axis=1)
    place = prompt_slots + state.index
    lm = model.language_model
    context = lm.context(slot_mask, place, 1, prompt=state.prompt, side_by_side=True)
    context = context._replace(index=state.index)
    mask = beams(_mask(model, state.media_index[:, None], state.media_mask))
    hidden, cache = model.decode(tokens[:, None], context, state.media_keys, mask, state.cache)
    state = state._replace(cache=_laid_out(cache), index=state.index + 1)
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
