"""Greedy decoding and sampling, all rows of a batch at once, until `<EOC>` or a length.

Paper: appendix B.3; its qualitative samples are greedy, its scores use beam search (`beam.py`).
Tokens that stand for no text of an answer (padding, `<image>`) are never written.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flamingo_jax.batch import Batch
from flamingo_jax.decode.steps import prefill, step
from flamingo_jax.models.flamingo import Flamingo

Array = jax.Array
_LEAST = float(jnp.finfo(jnp.float32).tiny)  # of temperatures; below it is 0 on some devices


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen; `temperature=0` is greedy, `top_k=0` and `top_p=1` keep all."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature}: use 0 (greedy) or more")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k}: use 0 (all tokens) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: use more than 0 and up to 1")


class Continuation(NamedTuple):
    """What was written after each prompt; the stop token is counted in, padding follows it."""

    tokens: Array  # i32[B, max_tokens]
    length: Array  # i32[B]
    log_prob: Array  # f32[B], nats, of the tokens up to `length` under the unmodified model


class _Written(NamedTuple):
    """A continuation under way."""

    tokens: Array  # i32[B, max_tokens]
    length: Array  # i32[B]
    log_prob: Array  # f32[B]
    done: Array  # bool[B]


def sample(
    model: Flamingo,
    prompt: Batch,
    keys: Array,  # key[B], each row's own, so that what it draws does not depend on its batch
    *,
    config: SamplingConfig,
    max_tokens: int,
    stop_ids: Sequence[int],
    pad_id: int,
    never_ids: Sequence[int] = (),
) -> Continuation:
    """Continues each prompt (padded on the left) by up to `max_tokens` tokens."""
    logits, state = prefill(model, prompt, max_tokens)
    b = logits.shape[0]
    stops = jnp.asarray(list(stop_ids), jnp.int32)

    def write(place: Array | int, logits: Array, so_far: _Written) -> _Written:
        log_probs = jax.nn.log_softmax(logits)
        now = jax.vmap(jax.random.fold_in, (0, None))(keys, place)
        token = draw(forbid(log_probs, never_ids), now, config)
        token = jnp.where(so_far.done, pad_id, token).astype(jnp.int32)
        gain = jnp.take_along_axis(log_probs, token[:, None], axis=1)[:, 0]
        return _Written(
            so_far.tokens.at[:, place].set(token),
            so_far.length + ~so_far.done,
            so_far.log_prob + jnp.where(so_far.done, 0.0, gain),
            so_far.done | (token[:, None] == stops).any(-1),
        )

    def unfinished(carry) -> Array:
        place, _, so_far = carry
        return (place < max_tokens) & ~so_far.done.all()

    def go_on(carry):
        place, state, so_far = carry
        logits, state = step(model, so_far.tokens[:, place - 1], state)
        return place + 1, state, write(place, logits, so_far)

    nothing = _Written(
        jnp.full((b, max_tokens), pad_id, jnp.int32),
        jnp.zeros(b, jnp.int32),
        jnp.zeros(b, jnp.float32),
        jnp.zeros(b, bool),
    )
    start = jnp.int32(1), state, write(0, logits, nothing)
    _, _, written = jax.lax.while_loop(unfinished, go_on, start)
    return Continuation(written.tokens, written.length, written.log_prob)


def forbid(log_probs: Array, ids: Sequence[int]) -> Array:
    """Log-probabilities [..., V] with the tokens `ids` impossible, the others as they are."""
    return log_probs.at[..., jnp.asarray(list(ids), jnp.int32)].set(-jnp.inf) if ids else log_probs


def draw(log_probs: Array, keys: Array, config: SamplingConfig) -> Array:
    """One token a row of log-probabilities [B, V], with the row's key of key[B]."""
    if config.temperature == 0:
        return jnp.argmax(log_probs, axis=-1)
    below = log_probs - log_probs.max(axis=-1, keepdims=True)  # so that the likeliest stays finite
    scores = below / max(config.temperature, _LEAST)
    if config.top_k:
        count = min(config.top_k, scores.shape[-1])
        kth = jax.lax.top_k(scores, count)[0][:, -1:]
        scores = jnp.where(scores < kth, -jnp.inf, scores)
    if config.top_p < 1:
        scores = jnp.where(_in_nucleus(scores, config.top_p), scores, -jnp.inf)
    return jax.vmap(jax.random.categorical)(keys, scores)


def _in_nucleus(scores: Array, top_p: float) -> Array:
    """True for the likeliest tokens that together reach `top_p`, the one that crosses it too."""
    order = jnp.argsort(-scores, axis=-1)
    probs = jnp.take_along_axis(jax.nn.softmax(scores), order, axis=-1)
    keep_sorted = jnp.cumsum(probs, axis=-1) - probs < top_p
    rank = jnp.argsort(order, axis=-1)
    return jnp.take_along_axis(keep_sorted, rank, axis=-1)
