"""Beam search: the `num_beams` likeliest continuations kept at every step.

Paper: section 3.1 and appendix B.3 use 3 beams and stop at the first `<EOC>`; the length penalty is
not stated, so finished hypotheses are compared by their plain log-probability.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from flamingo_jax.batch import Batch
from flamingo_jax.decode.cache import DecodeState
from flamingo_jax.decode.sampler import Continuation, forbid
from flamingo_jax.decode.steps import prefill, step
from flamingo_jax.models.flamingo import Flamingo

Array = jax.Array


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
    stays while no `num_beams` others beat it.
    """
    logits, state = prefill(model, prompt, max_tokens)
    b, k = logits.shape[0], num_beams
    state = _repeat(state, k)
    stops = jnp.asarray(list(stop_ids), jnp.int32)
    first = jnp.full((b, k), -jnp.inf).at[:, 0].set(0.0)  # all beams are alike at the start
    start = (
        jnp.repeat(logits, k, axis=0),
        state,
        jnp.full((b, k, max_tokens), pad_id, jnp.int32),
        first,
        jnp.zeros((b, k), bool),
        jnp.zeros((b, k), jnp.int32),
    )

    def body(carry, position):
        logits, state, tokens, scores, done, length = carry
        log_probs = jax.nn.log_softmax(forbid(logits, never_ids)).reshape(b, k, -1)
        vocab = log_probs.shape[-1]
        only_pad = jnp.full((vocab,), -jnp.inf).at[pad_id].set(0.0)
        log_probs = jnp.where(done[..., None], only_pad, log_probs)
        scores, flat = jax.lax.top_k((scores[..., None] + log_probs).reshape(b, -1), k)
        beam, token = flat // vocab, (flat % vocab).astype(jnp.int32)
        done, length = _pick(done, beam), _pick(length, beam)
        tokens = _pick(tokens, beam).at[:, :, position].set(token)
        length = length + ~done
        done |= (token[..., None] == stops).any(-1)
        rows = (jnp.arange(b)[:, None] * k + beam).reshape(-1)
        logits, state = step(model, token.reshape(-1), _reorder(state, rows))
        return (logits, state, tokens, scores, done, length), None

    (_, _, tokens, scores, _, length), _ = jax.lax.scan(body, start, jnp.arange(max_tokens))
    return Continuation(tokens[:, 0], length[:, 0], scores[:, 0])


def _pick(x: Array, beam: Array) -> Array:
    """Beams `beam` i32[B, K] of x [B, K, ...]."""
    return jnp.take_along_axis(x, beam.reshape(*beam.shape, *[1] * (x.ndim - 2)), axis=1)


def _reorder(state: DecodeState, rows: Array) -> DecodeState:
    """The state with batch rows `rows`; the media of a prompt's beams are the same."""
    cache = jax.tree.map(lambda x: x[:, :, rows], state.cache)
    return state._replace(cache=cache, slot_mask=state.slot_mask[rows])


def _repeat(state: DecodeState, k: int) -> DecodeState:
    """Each row `k` times in a row."""
    return DecodeState(
        jax.tree.map(lambda x: jnp.repeat(x, k, axis=2), state.cache),
        jax.tree.map(lambda x: jnp.repeat(x, k, axis=1), state.media_keys),
        jnp.repeat(state.media_index, k, axis=0),
        jnp.repeat(state.media_mask, k, axis=0),
        jnp.repeat(state.slot_mask, k, axis=0),
        state.index,
    )
