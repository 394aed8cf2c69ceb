"""Beam search: the `num_beams` likeliest continuations kept at every step.

Paper: section 3.1 and appendix B.3 use 3 beams and stop at the first `<EOC>`; the length penalty is
not stated, so finished hypotheses are compared by their plain log-probability.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flamingo_jax.batch import Batch
from flamingo_jax.core.partition import on_shards
from flamingo_jax.decode.cache import CACHE_AXES, DecodeState
from flamingo_jax.decode.sampler import Continuation, forbid
from flamingo_jax.decode.steps import prefill, step
from flamingo_jax.models.flamingo import Flamingo

Array = jax.Array


class _Beams(NamedTuple):
    """The hypotheses of each prompt, the likeliest first."""

    tokens: Array  # i32[B, K, max_tokens]
    length: Array  # i32[B, K]
    log_prob: Array  # f32[B, K]
    done: Array  # bool[B, K]
    parent: Array  # i32[B, K], which hypothesis of the step before each goes on from


def beam_search(
    model: Flamingo,
    prompt: Batch,
    *,
    num_beams: int,
    max_tokens: int,
    stop_ids: Sequence[int],
    pad_id: int,
    never_ids: Sequence[int] = (),
) -> Continuation:
    """The likeliest continuation found for each prompt (padded on the left).

    A beam that wrote a stop token is finished: it keeps its score, writes padding at no cost, and
    stays while no `num_beams` others beat it. The search ends where the likeliest beam of each
    prompt is finished, as the others can only lose.
    """
    logits, state = prefill(model, prompt, max_tokens, num_beams)
    b, k = logits.shape[0], num_beams
    stops = jnp.asarray(list(stop_ids), jnp.int32)

    def write(place: Array | int, logits: Array, beams: _Beams) -> _Beams:
        log_probs = forbid(jax.nn.log_softmax(logits), never_ids).reshape(b, k, -1)
        vocab = log_probs.shape[-1]
        only_pad = jnp.full((vocab,), -jnp.inf).at[pad_id].set(0.0)
        log_probs = jnp.where(beams.done[..., None], only_pad, log_probs)
        sums = (beams.log_prob[..., None] + log_probs).reshape(b, -1)
        log_prob, flat = jax.lax.top_k(sums, k)
        parent, token = flat // vocab, (flat % vocab).astype(jnp.int32)
        tokens, length, done = (_pick(x, parent) for x in (beams.tokens, beams.length, beams.done))
        return _Beams(
            tokens.at[:, :, place].set(token),
            length + ~done,
            log_prob,
            done | (token[..., None] == stops).any(-1),
            parent,
        )

    def unfinished(carry) -> Array:
        place, _, beams = carry
        return (place < max_tokens) & ~beams.done[:, 0].all()

    def go_on(carry):
        place, state, beams = carry
        last = beams.tokens[:, :, place - 1].reshape(-1)
        logits, state = step(model, last, _reorder(state, beams.parent))
        return place + 1, state, write(place, logits, beams)

    alike = _Beams(  # so only the first of them counts
        jnp.full((b, k, max_tokens), pad_id, jnp.int32),
        jnp.zeros((b, k), jnp.int32),
        jnp.full((b, k), -jnp.inf).at[:, 0].set(0.0),
        jnp.zeros((b, k), bool),
        jnp.zeros((b, k), jnp.int32),
    )
    first = write(0, jnp.repeat(logits, k, axis=0), alike)
    start = jnp.int32(1), state, first
    _, _, beams = jax.lax.while_loop(unfinished, go_on, start)
    return Continuation(beams.tokens[:, 0], beams.length[:, 0], beams.log_prob[:, 0])


def _pick(x: Array, beam: Array) -> Array:
    """Beams `beam` i32[B, K] of x [B, K, ...]."""
    return jnp.take_along_axis(x, beam.reshape(*beam.shape, *[1] * (x.ndim - 2)), axis=1)


def _reorder(state: DecodeState, parent: Array) -> DecodeState:
    """Beams `parent` i32[B, K] of what was written; the prompt is the same for all its beams.

    They move among the rows of their prompt, so no device asks another for them.
    """

    def pick(x: Array, axes: tuple[str | None, ...]) -> Array:
        dim = axes.index("batch")

        def here(x: Array, parent: Array) -> Array:
            b, k = parent.shape
            rows = (jnp.arange(b)[:, None] * k + parent).reshape(-1)
            return x[(slice(None),) * dim + (rows,)]

        return on_shards(here, (axes, ("batch", None)), axes)(x, parent)

    return state._replace(cache=jax.tree.map(lambda x: pick(x, CACHE_AXES), state.cache))
