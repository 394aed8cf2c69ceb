"""One block of the frozen language model (paper: "LM block" in Figure 3), and its cache.

It serves Chinchilla, LLaMA, Mistral, Qwen, Gemma, OLMo 2, Phi, MPT, GPT-NeoX, OPT and GPT-2, which
differ in norms, positions, biases, activation and in where the feed-forward reads, all of them
values of the config. A key-value cache goes in and comes out; nothing is kept inside the modules.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core.attention import attend
from flamingo_jax.core.kernels import attend_causally
from flamingo_jax.core.layers import FeedForward, Norm, Projection
from flamingo_jax.core.partition import RESIDUAL, constrain, on_shards
from flamingo_jax.core.positions import Alibi, Rotary, Unmarked
from flamingo_jax.core.relative import Relative
from flamingo_jax.core.rngs import Rngs

Array = jax.Array

POSITIONS: dict[str, type[Unmarked]] = {
    "rope": Rotary,
    "alibi": Alibi,
    "relative": Relative,
    "learned": Unmarked,
}


class Cache(NamedTuple):
    """Keys and values of self-attention, of all layers of a segment."""

    key: Array  # [repeats, depth, B, S, K, H]
    value: Array  # [repeats, depth, B, S, K, H]


class LayerCache(NamedTuple):
    """One layer's keys and values, in the cache of its segment, where they are written in place.

    Sliced out and stacked again, as a scan does with what it is given for each layer, the whole
    cache would be copied with every token.
    """

    whole: Cache
    place: tuple[Array, Array]  # i32[], the group, and the layer in it
    prompt: Cache | None = None  # of the tokens before, [repeats, depth, B / n, P, K, H]; only read

    def written(self, key: Array, value: Array, index: Array | int) -> "LayerCache":
        """With those of some tokens, [B, T, K, H], from slot `index` on."""
        at = (*self.place, 0, index, 0, 0)
        new = (x[None, None] for x in (key, value))
        pairs = zip(self.whole, new, strict=True)
        return self._replace(
            whole=Cache(*(jax.lax.dynamic_update_slice(x, one, at) for x, one in pairs))
        )

    def read(self) -> Cache:
        """Keys and values [B, S, K, H] of all slots."""
        return self._own(self.whole)

    def read_prompt(self) -> Cache | None:
        """Keys and values [B / n, P, K, H] of the tokens before."""
        return None if self.prompt is None else self._own(self.prompt)

    def _own(self, cache: Cache) -> Cache:
        shape = cache.key.shape[2:]
        at = (*self.place, 0, 0, 0, 0)
        found = (jax.lax.dynamic_slice(x, at, (1, 1, *shape)) for x in cache)
        return Cache(*(x.reshape(shape) for x in found))


class Near(NamedTuple):
    """What tokens see in layers with a sliding window, where other layers have none."""

    shared: Any  # of `core.positions`
    mask: Array  # bool[B, T, S]
    window: int | None  # tokens; None where none are so far apart
    layers: dict[str, Array]  # by segment, bool[repeats, depth], which layers those are


class Context(NamedTuple):
    """What every block needs to know of the sequence."""

    positions: Array  # i32[B, T], the T tokens counted among the real ones
    shared: Any  # of `core.positions`
    mask: Array  # bool[B, T, S], of the prompt's slots too, which come first
    segments: Array  # i32[B, S], texts that do not see each other, from 1; 0 is padding
    index: Array | int = 0  # the cache slot of the first of the T tokens
    prompt: dict[str, Cache] | None = None  # by segment, of a prompt that several rows may share
    window: int | None = None  # tokens that one sees by `mask`; None: all before
    has_window: Array | None = None  # bool[], whether this layer has it; None: as all do
    near: Near | None = None

    def of_layer(self, has_window: Array | None) -> "Context":
        """This one, as layers with a window see it where `has_window`, bool[]; None: as others."""
        near = self.near
        if near is None or has_window is None:
            return self._replace(near=None)

        def choose(near: Any, far: Any) -> Any:
            if near is far:
                return far
            return jax.tree.map(lambda a, b: jnp.where(has_window, a, b), near, far)

        return self._replace(
            shared=choose(near.shared, self.shared),
            mask=choose(near.mask, self.mask),
            window=near.window,
            has_window=None if near.window is None else has_window,
            near=None,
        )


class Attention(nnx.Module):
    """Causal self-attention with grouped heads."""

    def __init__(self, config: LanguageModelConfig, kernel: str, *, rngs: Rngs):
        self.kernel = kernel
        width, h = config.width, config.head_dim
        n, k = config.num_heads, config.kv_heads
        kwargs = {"use_bias": config.use_bias or config.qkv_bias, "rngs": rngs}
        self.query = Projection([width], [n, h], ("embed", "heads", None), **kwargs)
        self.key = Projection([width], [k, h], ("embed", "kv_heads", None), **kwargs)
        self.value = Projection([width], [k, h], ("embed", "kv_heads", None), **kwargs)
        kwargs["use_bias"] = config.use_bias
        self.out = Projection([n, h], [width], ("heads", None, "embed"), **kwargs)
        self.norms_each_head = config.qk_norm_by_head
        widths = (h, h) if self.norms_each_head else (n * h, k * h)
        self.query_norm = make_norm(config, widths[0]) if config.qk_norm else None
        self.key_norm = make_norm(config, widths[1]) if config.qk_norm else None
        self.positions = POSITIONS[config.positions](config, rngs=rngs)
        scalar = config.query_pre_attn_scalar
        self.scale = None if scalar is None else scalar**-0.5
        self.softcap = config.attention_softcap

    def __call__(
        self, x: Array, context: Context, cache: LayerCache | None
    ) -> tuple[Array, LayerCache | None]:
        q = constrain(self.query(x), "batch", None, "heads", None)
        k = constrain(self.key(x), "batch", None, "kv_heads", None)
        v = constrain(self.value(x), "batch", None, "kv_heads", None)
        if self.query_norm is not None and self.norms_each_head:
            q, k = self.query_norm(q), self.key_norm(k)
        elif self.query_norm is not None:
            q, k = _over_heads(self.query_norm, q), _over_heads(self.key_norm, k)
        if cache is not None:
            q, k = _as_written(q, "heads"), _as_written(k, "kv_heads")
        q, k, bias = self.positions(q, k, context.shared)
        alone = context.mask.shape[-1] == k.shape[1]  # no tokens stand before these
        prompt = None
        if cache is not None:
            cache = cache.written(k, v, context.index)
            if not alone:
                prompt, (k, v) = cache.read_prompt(), cache.read()
        if alone and bias is None:
            window = context.window, context.has_window
            what = q, k, v, context.mask, context.segments, self.kernel, *window
            seen = attend_causally(*what, scale=self.scale, softcap=self.softcap)
        else:
            how = {"bias": bias, "scale": self.scale, "softcap": self.softcap}
            seen = attend(q, k, v, context.mask, **how, prompt=prompt)
        # For the way back: without it the partitioner brings the output's weights together.
        return self.out(constrain(seen, "batch", None, "heads", None)), cache


def _as_written(x: Array, heads: str) -> Array:
    """[B, T, N, H] in this order in memory: else a TPU turns whole kernels to suit the rotation."""
    axes = ("batch", None, heads, None)
    return on_shards(lambda x: with_layout_constraint(x, Layout((0, 1, 2, 3))), [axes], axes)(x)


def make_norm(config: LanguageModelConfig, width: int) -> Norm:
    return Norm(
        width, config.norm, config.norm_eps, bias=config.norm_bias, offset=config.norm_offset
    )


def _as_it_is(x: Array) -> Array:
    return x


def _over_heads(norm: Norm, x: Array) -> Array:
    """`norm` over all heads of x [B, T, N, H] together."""
    b, t, n, h = x.shape
    return norm(x.reshape(b, t, n * h)).reshape(b, t, n, h)


class Block(nnx.Module):
    """Normed self-attention and feed-forward, one after the other or side by side."""

    def __init__(self, config: LanguageModelConfig, kernel: str = "xla", *, rngs: Rngs):
        self.parallel_residual, self.norm_after = config.parallel_residual, config.norm_after
        both = config.sandwich_norm
        self.attention_norm = make_norm(config, config.width)
        self.attention = Attention(config, kernel, rngs=rngs)
        self.attention_post_norm = make_norm(config, config.width) if both else None
        self.ffw_norm = make_norm(config, config.width)
        self.ffw_post_norm = make_norm(config, config.width) if both else None
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
        cache: LayerCache | None = None,
        between: Callable[[Array], Array] | None = None,  # after attention, for `vanilla`
    ) -> tuple[Array, LayerCache | None]:
        x = constrain(x, *RESIDUAL)
        before, after = self._norms(self.attention_norm, self.attention_post_norm)
        seen, cache = self.attention(before(x), context, cache)
        y = constrain(x + after(seen), *RESIDUAL)
        if between is not None:
            y = between(y)
        z = x if self.parallel_residual else y
        before, after = self._norms(self.ffw_norm, self.ffw_post_norm)
        return y + after(self.ffw(before(z))), cache

    def _norms(self, norm: Norm, post_norm: Norm | None) -> tuple[Callable, Callable]:
        """Of what a half of the block takes, and of what it gives."""
        own = (_as_it_is, norm) if self.norm_after else (norm, _as_it_is)
        return own if post_norm is None else (norm, post_norm)
