"""Floating-point operations of one training step, counted from the config, by component.

Only matrix products and convolutions count, two operations a multiply-add. What is frozen needs its
forward pass, and the gradient of its activations where something trained lies below: above the
lowest cross-attention, or everywhere if the new tokens' rows are trained as inputs. It never needs
the gradient of its weights, and the vision encoder needs none at all. What is trained needs all
three, a frozen part that is trained along too. What remat computes again does not count. What
microbatches do again, each for itself, does: projecting a block's relative positions, once a batch.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterable
from typing import Protocol

import jax
import jax.numpy as jnp

from flamingo_jax.config import (
    CrossAttentionConfig,
    FlamingoConfig,
    LanguageModelConfig,
    VisionConfig,
)
from flamingo_jax.core import op_count
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.models import insertion
from flamingo_jax.models.own_media import block_size
from flamingo_jax.models.resampler_ablations import mlp_hidden
from flamingo_jax.models.vision import VisionEncoder
from flamingo_jax.train.losses import chunk_size


class Dataset(Protocol):
    """What one dataset contributes to a step."""

    batch_size: int
    num_tokens: int
    num_media: int  # places in a row
    num_frames: int


@dataclasses.dataclass(frozen=True)
class Batch:
    """The sizes of a batch that cost depends on."""

    size: int
    num_tokens: int
    num_media: int
    num_frames: int = 1
    num_microbatches: int = 1  # of `size / num_microbatches` each

    @classmethod
    def of(cls, dataset: Dataset, num_microbatches: int = 1) -> "Batch":
        """Of a dataset, cut into so many parts."""
        sizes = dataset.batch_size, dataset.num_tokens, dataset.num_media, dataset.num_frames
        return cls(*sizes, num_microbatches)


@dataclasses.dataclass(frozen=True)
class Passes:
    """Operations of the forward pass, and of the gradients of activations and of weights."""

    forward: float = 0.0
    activations: float = 0.0
    weights: float = 0.0

    @property
    def total(self) -> float:
        return self.forward + self.activations + self.weights

    def __add__(self, other: "Passes") -> "Passes":
        return Passes(
            self.forward + other.forward,
            self.activations + other.activations,
            self.weights + other.weights,
        )

    def __mul__(self, times: float) -> "Passes":
        return Passes(self.forward * times, self.activations * times, self.weights * times)


def train_step(
    config: FlamingoConfig,
    datasets: Iterable[Dataset],
    *,
    encode_media: bool = False,
    accumulate: bool = True,
    num_microbatches: int = 1,
) -> float:
    """FLOPs of one update; with the vision encoder where it runs in the step."""
    batches = [Batch.of(dataset, num_microbatches) for dataset in datasets]
    parts = step(config, batches, encode_media=encode_media, accumulate=accumulate)
    return sum(passes.total for passes in parts.values())


def step(
    config: FlamingoConfig,
    batches: Iterable[Batch],
    *,
    encode_media: bool,
    accumulate: bool = True,
) -> dict[str, Passes]:
    """The same by component. Where an update visits one dataset, in turn, it is their mean."""
    visits = [batch(config, b, encode_media=encode_media) for b in batches]
    share = 1.0 if accumulate else 1 / len(visits)
    total: dict[str, Passes] = {}
    for visit in visits:
        for name, passes in visit.items():
            total[name] = total.get(name, Passes()) + passes * share
    return total


def batch(config: FlamingoConfig, b: Batch, *, encode_media: bool) -> dict[str, Passes]:
    """Loss and gradient of one batch, by the parameters' components, and the logits (`head`).

    `forward` alone is what it costs to score the batch.
    """
    times = b.num_microbatches
    b = dataclasses.replace(b, size=b.size // times, num_microbatches=1)
    frames = b.size * b.num_media * b.num_frames
    parts = {
        "vision": _vision(config, encode=encode_media) * frames,
        "resampler": _resampler(config, b),
        "gated_xattn": _gated_xattn(config, b),
        "language_model": _language_model(config, b),
        "graft": _graft(config, b),
        "head": _head(config, b),
    }
    return {name: passes * times for name, passes in parts.items() if passes.total}


def _vision(config: FlamingoConfig, *, encode: bool) -> Passes:
    """One frame through the encoder, and its features through the map that aligns them.

    A trained encoder's convolutions count thrice, the first one too, though nothing needs the
    gradient of pixels.
    """
    vision = config.vision
    once = float(encoder(vision)) if encode else 0.0
    total = Passes(once, once, once) if "vision" in config.trained else Passes(once)
    if vision.aligned_width is not None:
        total += Passes(2.0 * vision.num_features * vision.width * vision.aligned_width)
    return total


def per_frame(config: FlamingoConfig) -> float:
    """FLOPs of a frame's passes through the encoder in a training step."""
    passes = 3 if "vision" in config.trained else 1
    return passes * float(encoder(config.vision))


@functools.lru_cache(maxsize=64)
def encoder(config: VisionConfig) -> int:
    """FLOPs of one frame, forward."""
    size_px = config.preprocessing.size_px
    picture = jax.ShapeDtypeStruct((1, size_px, size_px, 3), jnp.float32)
    return op_count.flops(lambda x: VisionEncoder(config, rngs=Rngs(0)).encoder(x), picture)


def _linear(multiply_adds: float, *, activations: bool = True, weights: bool = True) -> Passes:
    """A product with weights, and which of its gradients are wanted."""
    one = 2.0 * multiply_adds
    return Passes(one, one * activations, one * weights)


def _product(multiply_adds: float, *, sides: int) -> Passes:
    """A product of two activations, of which so many sides have a gradient."""
    return Passes(2.0 * multiply_adds, 2.0 * sides * multiply_adds)


def _attend(num_queries: int, num_keys: int, inner: int, *, sides: int = 2) -> Passes:
    """Queries with keys, weights with values; masked pairs are computed too."""
    return _product(2 * num_queries * num_keys * inner, sides=sides)


def _resampler(config: FlamingoConfig, b: Batch) -> Passes:
    """All three passes but for the features, which are frozen: their projection has no gradient
    below. Keys and values do, as the norm before them is trained."""
    r, v = config.resampler, config.vision
    inner = r.num_heads * r.head_dim
    features, latents = b.num_frames * v.num_features, r.num_latents
    both = features + latents
    match r.kind:
        case "perceiver":
            weights = 2 * r.width * inner * (latents + both)
            weights += 2 * latents * r.ffw_multiplier * r.width**2
            layer = _linear(weights) + _attend(latents, both, inner)
        case "transformer":
            weights = both * (4 * r.width * inner + 2 * r.ffw_multiplier * r.width**2)
            layer = _linear(weights) + _attend(both, both, inner)
        case "mlp":
            layer = _linear(features * 2 * r.width * mlp_hidden(r))
    total = layer * r.depth
    if v.output_width != r.width:
        learns = "vision" in config.trained
        total += _linear(features * v.output_width * r.width, activations=learns)
    return total * (b.size * b.num_media)


def _gated_xattn(config: FlamingoConfig, b: Batch) -> Passes:
    """Every layer wholly, the lowest too: the norm before its queries is trained."""
    lm, xattn, r = config.language_model, config.cross_attention, config.resampler
    layers = sum(s.repeats for s in insertion.cross_attention_segments(config))
    per_media = config.vision.num_features if r.kind == "mlp" else r.num_latents
    visual = b.num_media * per_media
    inner = xattn.num_heads * xattn.head_dim
    weights = 2 * inner * (b.num_tokens * lm.width + visual * config.media_width)
    if xattn.kind == "gated":
        matrices = 3 if xattn.gated_ffw else 2
        weights += matrices * b.num_tokens * xattn.hidden_width(lm.width) * lm.width
    if not b.num_media:  # texts alone: cross-attention is left out
        weights -= 2 * inner * b.num_tokens * lm.width
    total = (_linear(weights) + _look(xattn, b, per_media, inner)) * layers
    if xattn.media_width is not None:
        total += _linear(visual * r.width * xattn.media_width)
    return total * b.size


def _look(xattn: CrossAttentionConfig, b: Batch, per_media: int, inner: int) -> Passes:
    """Each token at its own media, in blocks with places left over; or at all (`own_media`)."""
    if xattn.attend != "last" or b.num_media < 2:
        return _attend(b.num_tokens, b.num_media * per_media, inner)
    size = block_size(b.num_tokens, b.num_media)
    places = (b.num_tokens + b.num_media * (size - 1)) // size * size
    return _attend(places, per_media, inner)


def _language_model(config: FlamingoConfig, b: Batch) -> Passes:
    """Forward everywhere; gradients of activations above the lowest cross-attention.

    Where it is trained, all gradients everywhere, as its embedding learns.
    """
    lm, xattn = config.language_model, config.cross_attention
    below = lm.num_layers if xattn.kind == "graft" else xattn.offset
    if "language_model" in config.trained:
        return blocks(lm, b, range(lm.num_layers), weights=True)
    below = 0 if config.train_new_inputs else below
    total = blocks(lm, b, range(below, lm.num_layers))
    total += blocks(lm, b, range(below), activations=False)
    if below and xattn.kind == "vanilla":  # stands above the attention of its own block
        own = lm.window(below)
        total += _self_attention(lm, b, own, activations=False) + _self_attention(lm, b, own) * -1
    return total


def _graft(config: FlamingoConfig, b: Batch) -> Passes:
    """Trained blocks of the language model's shape."""
    if config.cross_attention.kind != "graft":
        return Passes()
    lm = config.language_model
    layers = range(lm.num_layers, lm.num_layers + config.cross_attention.graft_depth)
    return blocks(lm, b, layers, weights=True)


def blocks(
    lm: LanguageModelConfig,
    b: Batch,
    layers: range,
    *,
    activations: bool = True,
    weights: bool = False,
) -> Passes:
    """Blocks of the language model, with those gradients that are asked for."""
    ffw = (3 if lm.gated_ffw else 2) * lm.width * lm.ffw_width * b.size * b.num_tokens
    wanted = {"activations": activations, "weights": weights}
    total = _linear(ffw, **wanted) * len(layers)
    for window, times in collections.Counter(map(lm.window, layers)).items():
        total += _self_attention(lm, b, window, **wanted) * times
    return total


def _self_attention(
    lm: LanguageModelConfig,
    b: Batch,
    window: int | None,
    *,
    activations: bool = True,
    weights: bool = False,
) -> Passes:
    """All pairs of tokens are computed, those that the causal mask hides too.

    Of a sliding window its width for each token, which is what splash computes; XLA masks more.
    """
    inner, t = lm.num_heads * lm.head_dim, b.num_tokens
    projections = 2 * lm.width * lm.head_dim * (lm.num_heads + lm.kv_heads) * b.size * t
    total = _linear(projections, activations=activations, weights=weights)
    keys = t if window is None else min(t, window)
    total += _attend(t, keys, inner, sides=2 * activations) * b.size
    if lm.positions == "relative":  # T distances are projected once a batch
        total += _linear(t * lm.width * inner, activations=False, weights=weights)
        total += _product(b.size * t * t * inner, sides=activations + weights)
    return total


def _head(config: FlamingoConfig, b: Batch) -> Passes:
    """Logits and their gradients, of the tokens that the loss looks at.

    New rows learn, the frozen ones where the language model is trained: then the loss looks at all
    tokens (`train.token_loss`).
    """
    width, lm = config.language_model.width, config.language_model
    if "language_model" in config.trained:
        return _linear(b.size * b.num_tokens * width * config.vocab_size)
    positions = _logit_tokens(b)
    return _linear(positions * width * lm.vocab_size, weights=False) + _linear(
        positions * width * config.num_new_tokens
    )


def _logit_tokens(b: Batch) -> int:
    """Whole chunks with a target in them; a row's last token predicts none (see `train.losses`)."""
    chunk = chunk_size(b.size * b.num_tokens)
    return -(-b.size * (b.num_tokens - 1) // chunk) * chunk
