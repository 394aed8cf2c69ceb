"""The frozen decoder-only language model (paper: Chinchilla, section 2.2; here by config).

Its blocks (`lm_block.py`) are kept in segments (`core.stack.plan`), so that the gated
cross-attention of `flamingo.py` can stand between them; the bare model is the same walk with
nothing in between.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flamingo_jax.config import LanguageModelConfig, LongRopeScaling
from flamingo_jax.core import kernels
from flamingo_jax.core.layers import embedding_rows
from flamingo_jax.core.partition import constrain
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.softcap import softcap
from flamingo_jax.core.stack import Execution, Segment, Stack, fold, plan
from flamingo_jax.models.lm_block import (
    POSITIONS,
    Block,
    Cache,
    Context,
    LayerCache,
    Near,
    make_norm,
)

Array = jax.Array


class Segments(nnx.Module):
    """One stack of groups of blocks a segment, under the segment's name."""

    def __init__(
        self,
        segments: tuple[Segment, ...],
        make: Callable[[Segment, Rngs], nnx.Module],
        execution: Execution,
        rngs: Rngs,
        *,
        in_place: bool = False,
    ):
        for s in segments:
            make_one = functools.partial(make, s)
            stack = Stack(make_one, s.repeats, execution, rngs, in_place=in_place)
            setattr(self, s.name, stack)


def make_blocks(
    config: LanguageModelConfig,
    segments: tuple[Segment, ...],
    execution: Execution,
    rngs: Rngs,
    *,
    frozen: bool = False,
) -> Segments:
    """Groups of blocks, each a stack of its own; the blocks rematerialise, not the groups."""
    kernel = execution.attention
    kernel = kernels.resolve("auto", jax.default_backend()) if kernel == "auto" else kernel
    return Segments(
        segments,
        lambda s, rngs: Stack(
            lambda rngs: Block(config, kernel, rngs=rngs), s.depth, execution, rngs
        ),
        execution.without_remat(),
        rngs,
        in_place=frozen,
    )


class Inserted(NamedTuple):
    """Trained layers among the blocks, one for each group of a gated segment."""

    layers: Segments
    visit: Callable[[nnx.Module, Array, Any], Array]  # (layer, x, media) -> x
    media: dict[str, Any] | None = None  # by gated segment; leaves with a leading group axis
    inside: bool = False  # between attention and feed-forward; else before the group


def walk(
    segments: tuple[Segment, ...],
    blocks: Segments,
    x: Array,  # [B, T, D]
    context: Context,
    cache: dict[str, Cache] | None = None,
    inserted: Inserted | None = None,
) -> tuple[Array, dict[str, Cache] | None]:
    """Hidden states [B, T, D] after all blocks of the segments, and the cache with these tokens."""
    new_cache = {}
    for segment in segments:
        name = segment.name
        stacks = [getattr(blocks, name)]
        has_layers = inserted is not None and segment.gated
        prompt = context.prompt and context.prompt[name]
        has_window = context.near and context.near.layers.get(name)  # a graft's have none
        if has_layers:
            stacks.append(getattr(inserted.layers, name))

        def group(
            carry, layers, xs, segment=segment, has_layers=has_layers, stacks=stacks, prompt=prompt
        ):
            (x, kept), (number, has_window, media) = carry, xs
            between = None
            if has_layers:
                visit = functools.partial(inserted.visit, layers[1], media=media)
                if not inserted.inside:  # else the block it stands in is rematerialised with it
                    visit = stacks[1].execution.rematerialise(visit)
                x, between = (x, visit) if inserted.inside else (visit(x), None)

            def block(carry, blocks, xs):
                (x, kept), (i, has_window) = carry, xs
                own = None if kept is None else LayerCache(kept, (number, i), prompt)
                x, own = blocks[0](x, context.of_layer(has_window), own, between)
                return (x, None if own is None else own.whole), None

            numbers = None if kept is None else jnp.arange(segment.depth)
            return fold(block, (x, kept), [layers[0]], (numbers, has_window))

        xs = (
            None if cache is None else jnp.arange(segment.repeats),
            has_window,
            inserted.media[name] if has_layers and inserted.media else None,
        )
        carry = x, None if cache is None else cache[name]
        (x, new_cache[name]), _ = fold(group, carry, stacks, xs)
    # Whole rows again: what picks tokens out of rows that are cut goes wrong in XLA (jax 0.10.2).
    return constrain(x, "batch", None, None), new_cache if cache is not None else None


class LanguageModel(nnx.Module):
    """Token embedding, blocks in segments, final norm, output head."""

    def __init__(
        self,
        config: LanguageModelConfig,
        execution: Execution,
        segments: tuple[Segment, ...] | None = None,
        *,
        frozen: bool = False,  # no gradient of its blocks is asked for, see `core.stack.Stack`
        rngs: Rngs,
    ):
        self.config = config
        self.segments = segments or plan(config.num_layers, config.num_layers, 0)
        table = (config.vocab_size, config.width, rngs, "vocab")
        self.embedding = embedding_rows(*table)
        learned = config.positions == "learned"
        self.position_embedding = (
            embedding_rows(config.max_length, config.width, rngs) if learned else None
        )
        self.blocks = make_blocks(config, self.segments, execution, rngs, frozen=frozen)
        self.final_norm = make_norm(config, config.width)
        self.head = None if config.tied_head else embedding_rows(*table)

    @property
    def output_embedding(self) -> Array:
        """[V, D], one row a token; the logits are hidden states times these rows."""
        return (self.embedding if self.head is None else self.head)[...]

    def __call__(self, tokens: Array, token_mask: Array | None = None) -> Array:
        """f32[B, T, V] logits of tokens i32[B, T]: the bare language model."""
        if token_mask is None:
            token_mask = jnp.ones(tokens.shape, bool)
        x = self.embedding[...][tokens]
        x, _ = self.hidden(x, self.context(token_mask))
        return logits(x, self.output_embedding, self.config.logits_softcap)

    def context(
        self,
        slot_mask: Array,  # bool[B, S], True where a cache slot holds a real token, now or before
        index: Array | int = 0,  # slot of the first token
        num_tokens: int | None = None,  # T, the tokens to run now; default all S
        segments: Array | None = None,  # i32[B, S] of packed rows; None: a row is one text
        *,
        prompt: dict[str, Cache] | None = None,  # of slots before those of the cache
        side_by_side: bool = False,  # no padding stands between a row's real tokens
    ) -> Context:
        """Positions count real tokens only, so padding on either side changes nothing.

        In packed rows they count from the beginning of each segment. Said to stand `side_by_side`,
        tokens are as far apart as their slots, which blocks then need not look up for each row.
        """
        num_slots = slot_mask.shape[1]
        self.check_length(num_slots)
        t = num_slots if num_tokens is None else num_tokens
        slots = jnp.maximum(jnp.cumsum(slot_mask, axis=1) - 1, 0)
        mask = (jnp.arange(num_slots) <= index + jnp.arange(t)[:, None]) & slot_mask[:, None]
        if segments is None:
            segments = slot_mask.astype(jnp.int32)
        else:
            begins = jnp.diff(segments, axis=1, prepend=0) != 0
            slots -= jax.lax.cummax(jnp.where(begins, slots, 0), axis=1)
            now = jax.lax.dynamic_slice_in_dim(segments, index, t, axis=1)
            mask &= now[:, :, None] == segments[:, None]
        positions = jax.lax.dynamic_slice_in_dim(slots, index, t, axis=1)
        what = positions, slots, mask, segments, index, prompt
        return self.placed(*what, side_by_side=side_by_side)

    def placed(
        self,
        positions: Array,  # i32[B, T], of the tokens to run now
        slots: Array,  # i32[B, S], of those in the cache's slots
        mask: Array,  # bool[B, T, S], which of them a token sees where no window is in the way
        segments: Array,  # i32[B, S]
        index: Array | int = 0,  # as of `context`
        prompt: dict[str, Cache] | None = None,
        *,
        side_by_side: bool = False,
    ) -> Context:
        """The context of tokens whose positions are known."""
        kind, (t, num_slots) = POSITIONS[self.config.positions], mask.shape[1:]
        numbers = index + jnp.arange(t)[None], jnp.arange(num_slots)[None]
        places = numbers if side_by_side and kind.by_distance else (positions, slots)
        lengths = None
        if isinstance(self.config.rope_scaling, LongRopeScaling):
            lengths = text_lengths(segments, index, t, prompt)
        shared = kind.shared(self.config, *places, lengths)
        context = Context(positions, shared, mask, segments, index, prompt)
        window, base = self.config.sliding_window, self.config.local_rope_base
        if window is None:
            return context
        if base is not None:
            local = dataclasses.replace(self.config, rope_base=base, rope_scaling=None)
            shared = kind.shared(local, *places)
        if num_slots <= window:
            window = None
        else:
            places = numbers if side_by_side else (positions, slots)
            mask &= places[0][:, :, None] - places[1][:, None] < window
        if not self.config.global_layers:
            return context._replace(shared=shared, mask=mask, window=window)
        if base is None and window is None:
            return context
        return context._replace(near=Near(shared, mask, window, self._layers_with_window()))

    def _layers_with_window(self) -> dict[str, Array]:
        """By segment, bool[repeats, depth]."""
        has = np.array([self.config.window(i) is not None for i in range(self.config.num_layers)])
        return {
            s.name: has[s.start :][: s.repeats * s.depth].reshape(s.repeats, s.depth)
            for s in self.segments
        }

    def check_length(self, num_slots: int) -> None:
        """ValueError where learned positions end before so many tokens."""
        if self.position_embedding is not None and num_slots > self.config.max_length:
            raise ValueError(
                f"a sequence of {num_slots} tokens: the learned positions end at "
                f"language_model.max_length={self.config.max_length}"
            )

    def hidden(
        self,
        x: Array,  # [B, T, D] embedded tokens
        context: Context,
        cache: dict[str, Cache] | None = None,
        inserted: Inserted | None = None,
    ) -> tuple[Array, dict[str, Cache] | None]:
        """Hidden states [B, T, D] after the final norm, and the cache with these tokens in it."""
        if self.config.scale_embedding:
            x = x * jnp.asarray(self.config.width**0.5, x.dtype)
        if self.position_embedding is not None:
            x = x + self.position_embedding[...].astype(x.dtype)[context.positions]
        x, cache = walk(self.segments, self.blocks, x, context, cache, inserted)
        return self.final_norm(x), cache


def text_lengths(
    segments: Array,  # i32[B, S]
    index: Array | int,
    num_tokens: int,  # T
    prompt: dict[str, Cache] | None,
) -> Array:
    """i32[B, T or 1], tokens of the text that each of T tokens from slot `index` on is in.

    Of the prompt where there is one: what goes on from it is rotated as its keys were.
    """
    if prompt is not None:
        num_slots = next(iter(prompt.values())).key.shape[3]
        return (segments[:, :num_slots] > 0).sum(1, keepdims=True)
    now = jax.lax.dynamic_slice_in_dim(segments, index, num_tokens, axis=1)
    return (now[:, :, None] == segments[:, None]).sum(-1)


def logits(hidden: Array, output_embedding: Array, cap: float | None = None) -> Array:
    """f32[B, T, V] of hidden [B, T, D] and rows [V, D], within `cap` (`core.softcap`)."""
    rows = output_embedding.astype(hidden.dtype)
    scores = jnp.einsum("btd,vd->btv", hidden, rows, preferred_element_type=jnp.float32)
    return softcap(scores, cap)
