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


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen; `temperature=0` is greedy, `top_k=0` and `top_p=1` keep all."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        if self.temperature < 0:
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


def sample(
    model: Flamingo,
    prompt: Batch,
    key: Array,
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

    def choose(logits, key, done):
        log_probs = jax.nn.log_softmax(forbid(logits, never_ids))
        token = draw(log_probs, key, config)
        token = jnp.where(done, pad_id, token).astype(jnp.int32)
        gain = jnp.take_along_axis(log_probs, token[:, None], axis=1)[:, 0]
        return token, jnp.where(done, 0.0, gain)

    def body(carry, key):
        logits, state, done, log_prob = carry
        token, gain = choose(logits, key, done)
        length = (~done).astype(jnp.int32)
        done |= (token[:, None] == stops).any(-1)
        logits, state = step(model, token, state)
        return (logits, state, done, log_prob + gain), (token, length)

    start = (logits, state, jnp.zeros(b, bool), jnp.zeros(b, jnp.float32))
    (*_, log_prob), (tokens, lengths) = jax.lax.scan(body, start, jax.random.split(key, max_tokens))
    return Continuation(tokens.T, lengths.sum(0), log_prob)


def forbid(logits: Array, ids: Sequence[int]) -> Array:
    """Logits [..., V] with the tokens `ids` impossible."""
    return logits.at[..., jnp.asarray(list(ids), jnp.int32)].set(-jnp.inf) if ids else logits


def draw(log_probs: Array, key: Array, config: SamplingConfig) -> Array:
    """One token a row of log-probabilities [B, V]."""
    if config.temperature == 0:
        return jnp.argmax(log_probs, axis=-1)
    scores = log_probs / config.temperature
    if config.top_k:
        kth = jax.lax.top_k(scores, config.top_k)[0][:, -1:]
        scores = jnp.where(scores < kth, -jnp.inf, scores)
    if config.top_p < 1:
        scores = jnp.where(_in_nucleus(scores, config.top_p), scores, -jnp.inf)
    return jax.random.categorical(key, scores, axis=-1)


def _in_nucleus(scores: Array, top_p: float) -> Array:
    """True for the likeliest tokens that together reach `top_p`, the one that crosses it too."""
    order = jnp.argsort(-scores, axis=-1)
    probs = jnp.take_along_axis(jax.nn.softmax(scores), order, axis=-1)
    keep_sorted = jnp.cumsum(probs, axis=-1) - probs < top_p
    rank = jnp.argsort(order, axis=-1)
    return jnp.take_along_axis(keep_sorted, rank, axis=-1)
