"""Log-likelihoods of many candidate answers to one prompt, which is read once.

Paper: section 3.1 and appendix B.3; close-ended tasks append each candidate to the prompt and rank
by log-likelihood. Length normalisation is not stated; there is none.

Candidates stand side by side behind the prompt, each of them blind to the others, at the places in
the text that it would have alone. So neither the prompt nor its pictures are computed or kept once
a candidate. Of each candidate the last token needs no place, as nothing follows it, and the first
is predicted by the prompt:

    slots      <BOS> <image> Output: | a  b  | c | d  e  f  |
    position     0      1       2    | 3  4  | 3 | 3  4  5  |      candidates a b <EOC>, c <EOC>
    candidate    0      0       0    | 1  1  | 2 | 3  3  3  |      and d e f <EOC>
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flamingo_jax.batch import Batch
from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.decode import score
from flamingo_jax.decode.cache import DecodeState
from flamingo_jax.decode.prompt_batch import padded_length
from flamingo_jax.decode.steps import prefill
from flamingo_jax.models import media_mask
from flamingo_jax.models.flamingo import Flamingo

Array = jax.Array
MAX_PLACES = 256  # side by side at once; more candidates take turns behind the same prompt


class Candidates(NamedTuple):
    """The candidates of each prompt of a batch, in C turns of A places."""

    first: Array  # i32[B, K], first tokens; -1 where a prompt has fewer candidates, or an empty one
    tokens: Array  # i32[B, C, A], all tokens but the last of each candidate
    following: Array  # i32[B, C, A], the token after each of them
    candidate: Array  # i32[B, C, A], whose token it is, from 1; 0 is padding


def num_places(answers: Sequence[Sequence[Sequence[int]]], most: int = MAX_PLACES) -> int:
    """One A for all prompts: padding is cheaper than compiling again.

    More than `most` only where a single candidate needs it.
    """
    sizes = [[max(len(answer) - 1, 0) for answer in row] for row in answers]
    whole = max((sum(row) for row in sizes), default=0)
    longest = max((size for row in sizes for size in row), default=0)
    return max(longest, min(padded_length(max(whole, 1)), most))


def room(config: LanguageModelConfig, prompt_length: int) -> int:
    """The most places behind a prompt of so many slots: learned positions have an end."""
    if config.positions != "learned":
        return MAX_PLACES
    return min(MAX_PLACES, max(config.max_length - prompt_length, 1))


def pack(answers: Sequence[Sequence[int]], num_places: int) -> Candidates:
    """Token ids of one prompt's candidates, in as many turns as it takes; no batch axis."""
    turns = [([], [], [])]
    for number, answer in enumerate(answers, 1):
        new = list(answer[:-1]), list(answer[1:]), [number] * (len(answer) - 1)
        if len(turns[-1][0]) + len(new[0]) > num_places:
            turns.append(([], [], []))
        for row, more in zip(turns[-1], new, strict=True):
            row += more
    tokens, following, candidate = (
        np.array([row + [0] * (num_places - len(row)) for row in rows], np.int32)
        for rows in zip(*turns, strict=True)
    )
    first = np.array([answer[0] if answer else -1 for answer in answers], np.int32)
    return Candidates(first, tokens, following, candidate)


def log_probs(model: Flamingo, prompt: Batch, candidates: Candidates) -> Array:
    """f32[B, K] natural log-likelihood of each candidate, summed over its tokens.

    `prompt` is padded on the left (see `decode.prompt_batch`).
    """
    b, k = candidates.first.shape
    after_prompt, state = prefill(model, prompt, candidates.tokens.shape[-1])
    first = jax.nn.log_softmax(after_prompt)
    first = jnp.take_along_axis(first, jnp.maximum(candidates.first, 0), axis=-1)

    def take_turn(turn: tuple[Array, Array, Array]) -> Array:
        tokens, following, candidate = turn
        found = score.log_probs(model, _hidden(model, tokens, candidate, state), following)
        found = jnp.where(candidate > 0, found, 0.0)
        sums = jnp.zeros((b, k + 1)).at[jnp.arange(b)[:, None], candidate].add(found)
        return sums[:, 1:]

    turns = tuple(jnp.swapaxes(x, 0, 1) for x in candidates[1:])
    rest = jax.lax.map(take_turn, turns).sum(0)
    return jnp.where(candidates.first < 0, 0.0, first) + rest


def _hidden(model: Flamingo, tokens: Array, candidate: Array, state: DecodeState) -> Array:
    """Hidden states [B, A, D] of tokens that see the prompt and those before in their candidate."""
    lm, (b, a) = model.language_model, tokens.shape
    place = jnp.arange(a)
    begins = jnp.diff(candidate, axis=1, prepend=0) != 0
    depth = place - jax.lax.cummax(jnp.where(begins, place, 0), axis=1)
    in_prompt = state.prompt_mask
    positions = in_prompt.sum(1, keepdims=True) + depth
    slots = jnp.concatenate([jnp.maximum(jnp.cumsum(in_prompt, 1) - 1, 0), positions], axis=1)
    own = (candidate[:, :, None] == candidate[:, None]) & (place <= place[:, None])
    seen = jnp.broadcast_to(in_prompt[:, None], (b, a, in_prompt.shape[1]))
    mask = jnp.concatenate([seen, own], axis=-1)
    segments = mask.any(1).astype(jnp.int32)  # for kernels, and none reads a cache
    context = lm.placed(positions, slots, mask, segments, state.index, state.prompt)
    attend = model.config.cross_attention.attend
    media = media_mask.text_media_mask(state.media_index[:, None], state.media_mask, attend)
    media = jnp.broadcast_to(media, (b, a, media.shape[-1]))
    return model.decode(tokens, context, state.media_keys, media, state.cache)[0]
