"""Flamingo: a frozen vision encoder and a frozen language model, joined by two trained parts.

Paper: figure 3. Pictures pass the vision encoder and the Perceiver Resampler; the visual tokens
feed gated cross-attention blocks before every n-th language-model block; each text token sees the
last media before it. Nothing but composition stands here; where else the paper tried to insert
cross-attention is drawn in `insertion.py`.

The new tokens (`<image>` as one token, `<EOC>`) have trained rows of their own beyond the frozen
vocabulary, for input and for output. Trained as inputs, they are the one reason for a backward pass
below the lowest gated block; `train_new_inputs=False` reads them there without a gradient.

Ablations train a frozen part along, as `FlamingoConfig.trained` says (Table 3, row viii, Table 10,
rows v and vi). In a batch of texts alone nothing sees media: cross-attention is left out there, and
of a gated block the feed-forward stays.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.batch import Batch
from flamingo_jax.config import FlamingoConfig
from flamingo_jax.core.layers import Projection, embedding_rows
from flamingo_jax.core.partition import gathered
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution, Segment, fold
from flamingo_jax.models import insertion, media_mask
from flamingo_jax.models.gated_xattn import (
    CrossAttention,
    GatedCrossAttention,
    MediaItems,
    MediaKeys,
)
from flamingo_jax.models.graft import Graft
from flamingo_jax.models.lm import Inserted, LanguageModel, Segments, logits
from flamingo_jax.models.lm_block import Cache, Context
from flamingo_jax.models.resampler_ablations import make_resampler
from flamingo_jax.models.vision import VisionEncoder

Array = jax.Array


class NewTokens(nnx.Module):
    """Trained embedding rows of the tokens that the frozen vocabulary lacks."""

    def __init__(self, count: int, width: int, *, tied: bool, rngs: Rngs):
        self.embedding = embedding_rows(count, width, rngs)
        self.head = None if tied else embedding_rows(count, width, rngs)

    @property
    def output_embedding(self) -> Array:
        return (self.embedding if self.head is None else self.head)[...]


class Flamingo(nnx.Module):
    """Text likelihood given interleaved text and media (paper, equation 1)."""

    def __init__(
        self,
        config: FlamingoConfig,
        execution: Execution = Execution(),  # noqa: B008, frozen
        *,
        dtype: str = "float32",
        rngs: Rngs,
    ):
        self.config, self.dtype = config, dtype
        lm, xattn = config.language_model, config.cross_attention
        segments = insertion.language_model_segments(config)
        layer = GatedCrossAttention if xattn.kind == "gated" else CrossAttention
        self.vision = VisionEncoder(
            config.vision, execution, trained="vision" in config.trained, rngs=rngs
        )
        self.resampler = make_resampler(
            config.resampler, config.vision.output_width, execution, rngs=rngs
        )
        frozen = "language_model" not in config.trained
        self.language_model = LanguageModel(lm, execution, segments, frozen=frozen, rngs=rngs)
        self.gated_xattn = Segments(
            insertion.cross_attention_segments(config),
            lambda _, rngs: layer(xattn, lm.width, config.media_width, rngs=rngs),
            execution,
            rngs,
        )
        if xattn.media_width is not None:  # one for all blocks: Table 5 has no room for one a block
            shape = [config.resampler.width], [config.media_width]
            self.gated_xattn.media_projection = Projection(*shape, (None, "embed"), rngs=rngs)
        self.new_tokens = NewTokens(config.num_new_tokens, lm.width, tied=lm.tied_head, rngs=rngs)
        self.graft = (
            Graft(lm, insertion.graft_segment(config), execution, rngs=rngs)
            if xattn.kind == "graft"
            else None
        )

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Of all self-attention, frozen and trained: what a cache must hold."""
        return self.language_model.segments + ((self.graft.segment,) if self.graft else ())

    def __call__(self, batch: Batch) -> Array:
        """f32[B, T, V] logits; row t predicts token t + 1."""
        return self.logits(self.hidden(batch))

    def hidden(self, batch: Batch) -> Array:
        """Hidden states [B, T, D] that `logits` turns into scores."""
        there = batch.media.shape[1] > 0  # places for media; rows of texts have none
        visual = self.visual_tokens(batch.media, batch.media_mask) if there else None
        # A packed text has one media item, which is its last and all its previous ones.
        attend = self.config.cross_attention.attend if batch.segments is None else "last"
        mask = media_mask.text_media_mask(batch.media_index, batch.media_mask.any(-1), attend)
        context = self.language_model.context(batch.token_mask, segments=batch.segments)
        x, _ = self.decode(batch.tokens, context, visual, mask)
        return x

    def visual_tokens(self, media: Array, frame_mask: Array | None = None) -> Array:
        """[B, M, R, D_media] of pixels u8[B, M, F, H, W, 3] or raw features [B, M, F, P, E]."""
        dtype = jnp.dtype(self.dtype)
        with jax.named_scope("vision"):
            features = self.vision(media, dtype, frame_mask) if media.ndim == 6 else media
            features = self.vision.align(features.astype(dtype))
        with jax.named_scope("resampler"):
            visual = self.resampler(features, frame_mask)
            if self.config.cross_attention.media_width is not None:
                visual = self.gated_xattn.media_projection(visual)
            return visual

    def media_keys(self, visual: Array) -> dict[str, MediaKeys]:
        """Keys and values of all gated blocks for visual tokens [B, M, R, D_media]."""
        flat = visual.reshape(visual.shape[0], -1, visual.shape[-1])
        keys = {}
        for segment in insertion.cross_attention_segments(self.config):
            stack = getattr(self.gated_xattn, segment.name)
            _, keys[segment.name] = fold(
                lambda _, layers, __: (None, layers[0].media_keys(flat)), None, [stack]
            )
        return keys

    def decode(
        self,
        tokens: Array,  # i32[B, T]
        context: Context,
        # [B, M, R, D_media], or its `media_keys`
        visual: Array | MediaItems | dict[str, MediaKeys] | None,
        text_media_mask: Array,  # bool[B, T, M]
        cache: dict[str, Cache] | None = None,
    ) -> tuple[Array, dict[str, Cache] | None]:
        """Hidden states [B, T, D] and the cache with these tokens in it."""
        keys, flat, items = None, None, None
        if isinstance(visual, dict):
            keys = visual
        elif isinstance(visual, MediaItems):
            flat, items = visual
        elif visual is not None:
            flat = visual.reshape(visual.shape[0], -1, visual.shape[-1])

        def look(layer: CrossAttention, x: Array, media: MediaKeys | None) -> Array:
            media = media if flat is None else layer.media_keys(flat)._replace(items=items)
            return layer(x, media, text_media_mask)

        x = self.embed(tokens)
        inside = self.config.cross_attention.kind != "gated"
        inserted = Inserted(self.gated_xattn, look, keys, inside)
        with jax.named_scope("language_model"):
            if self.graft is None:
                return self.language_model.hidden(x, context, cache, inserted)
            x, lm_cache = self.language_model.hidden(x, context, cache)
        with jax.named_scope("graft"):
            x, cache = self.graft(x, context, cache, inserted)
            return x, cache if cache is None else lm_cache | cache

    def embed(self, tokens: Array) -> Array:
        """[B, T, D]; ids from the frozen vocabulary's size on are new tokens."""
        size = self.config.language_model.vocab_size
        table = self.language_model.embedding[...]
        if "language_model" in self.config.trained:  # which lies cut as gradients do
            table = gathered(table, ("vocab", "embed"))
        frozen = table[jnp.minimum(tokens, size - 1)]
        rows = self.new_tokens.embedding[...]
        rows = rows if self.config.train_new_inputs else jax.lax.stop_gradient(rows)
        new = rows[jnp.maximum(tokens - size, 0)]
        dtype = jnp.dtype(self.dtype)
        return jnp.where((tokens < size)[..., None], frozen.astype(dtype), new.astype(dtype))

    def logits(self, hidden: Array) -> Array:
        """f32[B, T, V + new] of hidden [B, T, D]: the frozen vocabulary, then the new tokens."""
        cap = self.config.language_model.logits_softcap
        frozen = logits(hidden, self.language_model.output_embedding, cap)
        new = logits(hidden, self.new_tokens.output_embedding, cap)
        return jnp.concatenate([frozen, new], axis=-1)
