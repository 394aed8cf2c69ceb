"""The train step of this codebase against OpenFlamingo 2.0.1's own, at small width.

    python -m benchmarks.open_flamingo_step

Both sides start from the same random weights and see the same batches; two processes take turns,
step by step, on all cores, in float32. Losses and gradient norms that agree say that it is the same
model: MPT's language model with OpenFlamingo's resampler and gated blocks before layers 1, 3, 5 and
7, and open_clip's ViT-S/16, which runs in the step. Shapes are OpenFlamingo's: interleaved pages of
256 tokens with room for 6 pictures of 224 px, twice as many pairs of 32 tokens, losses weighted 1
to 0.2.

What differs: weight decay, which OpenFlamingo has on gates and norms of the gated blocks too (1e-5
of them a step), and what a step computes, see README.md.
"""

import pathlib
import tempfile

import jax
import numpy as np
from absl import flags

from benchmarks import exchange, turns
from experiments import cli
from experiments.configs.public import CLIP
from flamingo_jax.batch import Batch, check
from flamingo_jax.config import (
    CrossAttentionConfig,
    DTypePolicy,
    FlamingoConfig,
    LanguageModelConfig,
    ResamplerConfig,
    VisionConfig,
)
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.train import flops, optim

_STEPS = flags.DEFINE_integer("steps", 15, "Steps of each side that are timed.", lower_bound=1)
_PAGES = flags.DEFINE_integer("pages", 4, "Pages of a batch; pairs are twice as many.", 1)

NUM_BATCHES = 4  # different ones, seen in turn
MAX_MEDIA, PAGE_TOKENS, PAIR_TOKENS = 6, 256, 32
WEIGHTS = {"pages": 1.0, "pairs": 0.2}

VOCAB = 50_278  # GPT-NeoX's 50,277 tokens and a padding token; then the two new ones
END_OF_TEXT, PAD, END_OF_CHUNK, IMAGE = 0, VOCAB - 1, VOCAB, VOCAB + 1

HEADS = {"num_heads": 8, "head_dim": 64, "activation": "gelu"}
CONFIG = FlamingoConfig(
    language_model=LanguageModelConfig(
        vocab_size=VOCAB,
        num_layers=8,
        width=512,
        ffw_width=2048,
        norm="layernorm",
        norm_bias=False,
        gated_ffw=False,
        positions="alibi",
        **HEADS,
    ),
    vision=VisionConfig(
        "vit", "vit_s_16", num_features=196, width=384, preprocessing=CLIP, post_norm=True
    ),
    resampler=ResamplerConfig(num_latents=64, depth=6, width=384, num_frames=0, **HEADS),
    cross_attention=CrossAttentionConfig(every=2, offset=1, normalize_media=False, **HEADS),
    num_new_tokens=2,
)
SETUP = exchange.Setup(
    CONFIG,
    optim.OptimizerConfig(b2=0.999, warmup_steps=100),
    Execution(scan=False, images_at_once=4),
    DTypePolicy("float32", "float32", "float32"),
    WEIGHTS,
)


def main() -> None:
    """Prints one table."""
    rng = np.random.default_rng(0)
    trainable, frozen = params_lib.split(random_params(rng))
    sizes = {"pages": _PAGES.value, "pairs": 2 * _PAGES.value}
    steps = [
        {name: random_batch(rng, name, size) for name, size in sizes.items()}
        for _ in range(NUM_BATCHES)
    ]
    with tempfile.TemporaryDirectory() as name:
        exchange.write(pathlib.Path(name), SETUP, trainable, frozen, steps)
        ours = exchange.Worker("benchmarks.jax_worker", name)
        theirs = exchange.Worker("benchmarks.open_flamingo_torch", name)
        facts, rows = turns.take(ours, theirs, _STEPS.value)
    turns.report("OpenFlamingo", facts, rows, step_flops(sizes), f"{sizes} a batch")


def step_flops(sizes: dict[str, int]) -> float:
    """What the model needs, the vision encoder with it."""
    batches = [
        flops.Batch(sizes["pages"], PAGE_TOKENS, MAX_MEDIA),
        flops.Batch(sizes["pairs"], PAIR_TOKENS, 1),
    ]
    return sum(p.total for p in flops.step(CONFIG, batches, encode_media=True).values())


def random_params(rng: np.random.Generator) -> dict:
    """As large as what training starts from, but that nothing is zero: gates are half open."""

    def draw(path, leaf):
        name = path[-1].key
        if name.endswith("_gate"):
            return np.full(leaf.shape, 0.5, np.float32)
        x = 0.04 * rng.normal(size=leaf.shape).astype(np.float32)
        return 1 + x if name == "scale" else x

    shapes = params_lib.abstract(lambda rngs: Flamingo(CONFIG, SETUP.execution, rngs=rngs))[1]
    return jax.tree_util.tree_map_with_path(draw, shapes)


def random_batch(rng: np.random.Generator, name: str, size: int) -> Batch:
    """Rows of random tokens, in OpenFlamingo's form; see `_row` for what counts in the loss."""
    length, max_media = (PAGE_TOKENS, MAX_MEDIA) if name == "pages" else (PAIR_TOKENS, 1)
    rows = [_page(rng) if name == "pages" else _pair(rng) for _ in range(size)]
    tokens = np.full((size, length), PAD, np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    real = tokens != PAD
    is_image = tokens == IMAGE
    media_index = np.cumsum(is_image, axis=1, dtype=np.int32)
    scored = real & ~is_image & (media_index > 0)
    if name == "pages":
        scored &= tokens != END_OF_TEXT  # it stands after a chunk; that of a pair is scored
    px = CONFIG.vision.preprocessing.size_px
    media_mask = np.arange(max_media) < is_image.sum(1)[:, None]
    media = rng.integers(0, 256, (size, max_media, 1, px, px, 3), np.uint8)
    media[~media_mask] = 0
    return check(Batch(tokens, real, scored, media_index, media, media_mask[..., None]))


def _page(rng: np.random.Generator) -> np.ndarray:
    """128 to 256 tokens with 2 to 6 pictures, a chunk ended before each but the first."""
    length = rng.integers(PAGE_TOKENS // 2, PAGE_TOKENS + 1)
    ids = rng.integers(1, PAD, length)
    places = 8 * np.sort(rng.permutation(length // 8 - 1)[: rng.integers(2, MAX_MEDIA + 1)])
    ids[places] = IMAGE
    ids[places[1:] - 1] = END_OF_CHUNK
    ids[-2:] = END_OF_CHUNK, END_OF_TEXT
    return ids


def _pair(rng: np.random.Generator) -> np.ndarray:
    """A picture and 5 to 29 tokens of caption."""
    caption = rng.integers(1, PAD, rng.integers(5, PAIR_TOKENS - 2))
    return np.concatenate([[IMAGE], caption, [END_OF_CHUNK, END_OF_TEXT]])


if __name__ == "__main__":
    cli.run(main)
