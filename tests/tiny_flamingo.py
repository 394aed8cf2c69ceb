"""A Flamingo small in every number with every feature on, random parameters, random batches.

Three media of two features a frame, a segment before the gated blocks, two groups and a rest;
sizes that are easily mixed up differ. Parameters are drawn by numpy, so nothing is compiled.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from flamingo_jax.batch import Batch
from flamingo_jax.config import (
    CrossAttentionConfig,
    FlamingoConfig,
    LanguageModelConfig,
    ResamplerConfig,
    VisionConfig,
)
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution, unroll
from flamingo_jax.models.flamingo import Flamingo

Tree = Any

VOCAB = 40  # frozen rows; 40 is <image>, 41 is <EOC>
IMAGE, END_OF_CHUNK, PAD = 40, 41, 39
NUM_FEATURES, VISION_WIDTH = 2, 10

CONFIG = FlamingoConfig(
    language_model=LanguageModelConfig(
        vocab_size=VOCAB,
        num_layers=6,
        width=16,
        num_heads=4,
        head_dim=6,
        ffw_width=24,
        num_kv_heads=2,
        max_length=64,
    ),
    vision=VisionConfig("efficientnet_lite", "thin", NUM_FEATURES, VISION_WIDTH, aligned_width=9),
    resampler=ResamplerConfig(
        num_latents=3, depth=2, width=12, num_heads=2, head_dim=4, num_frames=2
    ),
    cross_attention=CrossAttentionConfig(every=2, offset=1, num_heads=2, head_dim=8),
    num_new_tokens=2,
)
SCANNED, UNROLLED = Execution(scan=True), Execution(scan=False)


def changed(lm=(), resampler=(), cross_attention=(), **fields) -> FlamingoConfig:
    """`CONFIG` with some values changed, by part."""
    parts = {
        "language_model": dataclasses.replace(CONFIG.language_model, **dict(lm)),
        "resampler": dataclasses.replace(CONFIG.resampler, **dict(resampler)),
        "cross_attention": dataclasses.replace(CONFIG.cross_attention, **dict(cross_attention)),
    }
    return dataclasses.replace(CONFIG, **parts, **fields)


@functools.cache
def abstract(config: FlamingoConfig = CONFIG, execution: Execution = SCANNED):
    """Graph, shapes and logical axes."""
    return params_lib.abstract(lambda rngs: Flamingo(config, execution, rngs=rngs))


def random_params(
    config: FlamingoConfig = CONFIG, execution: Execution = SCANNED, *, gate: float = 0.5
) -> Tree:
    """Every leaf drawn, norms and biases too; the same numbers scanned and unrolled."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name.endswith("_gate"):
            return np.full(leaf.shape, gate, np.float32)
        mean = 1.0 if name in ("scale", "std", "variance") else 0.0
        return np.asarray(mean + 0.2 * rng.normal(size=leaf.shape), np.float32)

    drawn = jax.device_put(jax.tree_util.tree_map_with_path(draw, abstract(config)[1]))
    return drawn if execution.scan else unroll(drawn)


def random_batch(
    batch_size: int = 2, length: int = 12, num_media: int = 3, num_frames: int = 1, seed: int = 1
) -> Batch:
    """Two tokens of text, then media after media; targets everywhere but on the media tags."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, PAD, (batch_size, length)).astype(np.int32)
    for i in range(num_media):
        tokens[:, 2 + 3 * i] = IMAGE
    tokens[:, -1] = END_OF_CHUNK
    shape = (batch_size, num_media, num_frames, NUM_FEATURES, VISION_WIDTH)
    return Batch(
        tokens=tokens,
        token_mask=np.ones(tokens.shape, bool),
        loss_mask=(tokens != IMAGE) & (np.arange(length) > 0),
        media_index=np.cumsum(tokens == IMAGE, axis=1, dtype=np.int32),
        media=rng.normal(size=shape).astype(np.float32),
        media_mask=np.ones(shape[:3], bool),
    )


def jit(
    method: Callable, config: FlamingoConfig = CONFIG, execution: Execution = SCANNED
) -> Callable:
    """Compiled `f(params, *args)` of `method(model, *args)`."""
    graph = abstract(config, execution)[0]
    return jax.jit(lambda params, *args: method(nnx.merge(graph, params), *args))
