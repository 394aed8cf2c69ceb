"""The frozen decoder-only language model (paper: Chinchilla, section 2.2; here by config).

One block serves Chinchilla, LLaMA, MPT, GPT-NeoX, OPT and GPT-2: they differ in norm, positions,
biases, activation and in where the feed-forward reads, all of them values of the config.

Blocks are kept in segments (`core.stack.plan`), so that the gated cross-attention of `flamingo.py`
can stand between them; the bare model is the same walk with nothing in between. A key-value cache
goes in and comes out; nothing is kept inside the modules.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core import kernels
from flamingo_jax.core.attention import attend
from flamingo_jax.core.kernels import attend_causally
from flamingo_jax.core.layers import FeedForward, Norm, Projection, embedding_rows
from flamingo_jax.core.partition import RESIDUAL, constrain
from flamingo_jax.core.positions import Alibi, Rotary, Unmarked
from flamingo_jax.core.relative import Relative
from flamingo_jax.core.stack import Execution, Segment, Stack, fold, plan

Array = jax.Array

POSITIONS: dict[str, type[Unmarked]] = {
    "rope": Rotary,
    "alibi": Alibi,
    "relative": Relative,
    "learned": Unmarked,
}


class Cache(NamedTuple):
    """Keys and values of self-attention; leading axes of layers where they are stacked."""

    key: Array  # [..., B, S, K, H]
    value: Array  # [..., B, S, K, H]


class Context(NamedTuple):
    """What every block needs to know of the sequence."""

    positions: Array  # i32[B, T], the T tokens counted among the real ones
    shared: Any  # of `core.positions`
    mask: Array  # bool[B, T, S]
    segments: Array  # i32[B, S], texts that do not see each other, from 1; 0 is padding
    index: Array | int = 0  # the cache slot of the first of the T tokens


class Attention(nnx.Module):
    """Causal self-attention with grouped heads."""

    def __init__(self, config: LanguageModelConfig, kernel: str, *, rngs: nnx.Rngs):
        self.kernel = kernel
        width, h = config.width, config.head_dim
        n, k = config.num_heads, config.kv_heads
        kwargs = {"use_bias": config.use_bias, "rngs": rngs}
        self.query = Projection([width], [n, h], ("embed", "heads", None), **kwargs)
        self.key = Projection([width], [k, h], ("embed", "kv_heads", None), **kwargs)
        self.value = Projection([width], [k, h], ("embed", "kv_heads", None), **kwargs)
        self.out = Projection([n, h], [width], ("heads", None, "embed"), **kwargs)
        self.query_norm = make_norm(config, n * h) if config.qk_norm else None
        self.key_norm = make_norm(config, k * h) if config.qk_norm else None
        self.positions = POSITIONS[config.positions](config, rngs=rngs)

    def __call__(
        self, x: Array, context: Context, cache: Cache | None
    ) -> tuple[Array, Cache | None]:
        q = constrain(self.query(x), "batch", None, "heads", None)
        k = constrain(self.key(x), "batch", None, "kv_heads", None)
        v = constrain(self.value(x), "batch", None, "kv_heads", None)
        if self.query_norm is not None:
            q, k = _over_heads(self.query_norm, q), _over_heads(self.key_norm, k)
        q, k, bias = self.positions(q, k, context.shared)
        alone = context.mask.shape[-1] == k.shape[1]  # no tokens stand before these
        if cache is not None:
            cache = Cache(
                jax.lax.dynamic_update_slice_in_dim(cache.key, k, context.index, axis=1),
                jax.lax.dynamic_update_slice_in_dim(cache.value, v, context.index, axis=1),
            )
            k, v = (k, v) if alone else cache
        if alone and bias is None:
            seen = attend_causally(q, k, v, context.mask, context.segments, self.kernel)
        else:
            seen = attend(q, k, v, context.mask, bias=bias)
        # For the way back: without it the partitioner brings the output's weights together.
        return self.out(constrain(seen, "batch", None, "heads", None)), cache


def make_norm(config: LanguageModelConfig, width: int) -> Norm:
    return Norm(width, config.norm, config.norm_eps, bias=config.norm_bias)


def _over_heads(norm: Norm, x: Array) -> Array:
    """`norm` over all heads of x [B, T, N, H] together."""
    b, t, n, h = x.shape
    return norm(x.reshape(b, t, n * h)).reshape(b, t, n, h)


class Block(nnx.Module):
    """Pre-norm self-attention and feed-forward, one after the other or side by side."""

    def __init__(self, config: LanguageModelConfig, kernel: str = "xla", *, rngs: nnx.Rngs):
        self.parallel_residual = config.parallel_residual
        self.attention_norm = make_norm(config, config.width)
        self.attention = Attention(config, kernel, rngs=rngs)
        self.ffw_norm = make_norm(config, config.width)
        self.ffw = FeedForward(
            config.width,
            config.ffw_width,
            config.activation,
            gated=config.gated_ffw,
            use_bias=config.use_bias,
            rngs=rngs,
        )

    def __call__(
        self,
        x: Array,  # [B, T, D]
        context: Context,
        cache: Cache | None = None,
        between: Callable[[Array], Array] | None = None,  # after attention, for `vanilla`
    ) -> tuple[Array, Cache | None]:
        x = constrain(x, *RESIDUAL)
        seen, cache = self.attention(self.attention_norm(x), context, cache)
        y = constrain(x + seen, *RESIDUAL)
        if between is not None:
            y = between(y)
        return y + self.ffw(self.ffw_norm(x if self.parallel_residual else y)), cache


class Segments(nnx.Module):
    """One stack of groups of blocks a segment, under the segment's name."""

    def __init__(
        self,
        segments: tuple[Segment, ...],
        make: Callable[[Segment, nnx.Rngs], nnx.Module],
        execution: Execution,
        rngs: nnx.Rngs,
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
    rngs: nnx.Rngs,
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
        if has_layers:
            stacks.append(getattr(inserted.layers, name))

        def group(x, layers, xs, has_layers=has_layers, stacks=stacks):
            group_cache, media = xs
            between = None
            if has_layers:
                visit = functools.partial(inserted.visit, layers[1], media=media)
                if not inserted.inside:  # else the block it stands in is rematerialised with it
                    visit = stacks[1].execution.rematerialise(visit)
                x, between = (x, visit) if inserted.inside else (visit(x), None)
            return fold(
                lambda x, blocks, c: blocks[0](x, context, c, between), x, [layers[0]], group_cache
            )

        xs = (
            None if cache is None else cache[name],
            inserted.media[name] if has_layers and inserted.media else None,
        )
        x, new_cache[name] = fold(group, x, stacks, xs)
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
        rngs: nnx.Rngs,
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
        return logits(x, self.output_embedding)

    def context(
        self,
        slot_mask: Array,  # bool[B, S], True where a cache slot holds a real token, now or before
        index: Array | int = 0,  # slot of the first token
        num_tokens: int | None = None,  # T, the tokens to run now; default all S
        segments: Array | None = None,  # i32[B, S] of packed rows; None: a row is one text
    ) -> Context:
        """Positions count real tokens only, so padding on either side changes nothing.

        In packed rows they count from the beginning of each segment.
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
        shared = POSITIONS[self.config.positions].shared(self.config, positions, slots)
        return Context(positions, shared, mask, segments, index)

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
        if self.position_embedding is not None:
            x = x + self.position_embedding[...].astype(x.dtype)[context.positions]
        x, cache = walk(self.segments, self.blocks, x, context, cache, inserted)
        return self.final_norm(x), cache


def logits(hidden: Array, output_embedding: Array) -> Array:
    """f32[B, T, V] of hidden [B, T, D] and rows [V, D]."""
    rows = output_embedding.astype(hidden.dtype)
    return jnp.einsum("btd,vd->btv", hidden, rows, preferred_element_type=jnp.float32)
