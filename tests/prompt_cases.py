"""The prompts that show a mistake in a converted model, and how far its logits are from theirs.

Text alone; a picture first; text before it, two pictures, and rows of unequal length padded on the
left, which masks, offsets and ids must survive.
"""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from flax import nnx

from flamingo_jax.batch import Batch
from flamingo_jax.decode import prompt_batch
from flamingo_jax.model import Model
from flamingo_jax.prompts import EndOfChunk, ImagePart, TextPart

RED, GREEN, NOISE = (
    np.full((32, 32, 3), (200, 10, 10), np.uint8),
    np.full((40, 32, 3), (10, 200, 10), np.uint8),
    np.random.default_rng(0).integers(0, 256, (32, 70, 3), np.uint8),
)
_EOC = EndOfChunk()
PROMPTS = {
    "text alone": [[TextPart("Output: a dog")]],
    "a picture first": [[ImagePart(NOISE), TextPart("Output:a cat"), _EOC]],
    "text before it, two pictures, unequal lengths": [
        [
            *(TextPart("Look: "), ImagePart(RED), TextPart("red"), _EOC),
            *(ImagePart(NOISE), TextPart("no")),
        ],
        [ImagePart(GREEN), TextPart("g")],
    ],
}


def differences(
    model: Model,
    reference: Callable[[np.ndarray, Batch], np.ndarray],  # f32[B, M, H, W, 3], its batch -> logits
) -> Iterator[tuple[str, float]]:
    """(case, largest difference of a logit over the largest logit), of real tokens."""
    run = jax.jit(lambda params, batch: nnx.merge(model.graph, params)(batch))
    pp = model.config.vision.preprocessing
    shape = (pp.size_px, pp.size_px, 3)
    for name, prompts in PROMPTS.items():
        encoded = [prompt_batch.encode(p, model.tokenizer, pp) for p in prompts]
        batch = prompt_batch.to_batch(encoded, model.tokenizer, shape, side="left")
        pixels = (batch.media[:, :, 0] / np.float32(255) - np.float32(pp.mean)) / np.float32(pp.std)
        want = reference(pixels, batch)[batch.token_mask]
        found = np.asarray(run(model.params, batch))[batch.token_mask]
        assert found.shape == want.shape
        yield name, float(np.abs(found - want).max() / np.abs(want).max())
