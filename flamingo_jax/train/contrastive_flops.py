"""Floating-point operations of the contrastive step, counted from the config as `flops` counts.

Both towers are trained, so each product of the forward pass has two in the backward pass. The
encoder's are counted a picture, as pictures that cannot be read are none.
"""

from collections.abc import Iterable

from flamingo_jax.config import VisionConfig
from flamingo_jax.contrastive_config import TextTowerConfig, TwoTowersConfig
from flamingo_jax.train import flops

_PASSES = 3


def per_picture(vision: VisionConfig) -> float:
    """Of one picture's passes through the encoder."""
    return _PASSES * flops.encoder(vision)


def texts(config: TwoTowersConfig, datasets: Iterable[flops.Dataset]) -> float:
    """Of a step without the encoder: the text tower, the projections, and all scores."""
    joint, total = config.joint_width, 0.0
    for dataset in datasets:
        rows = dataset.batch_size
        projections = rows * joint * (config.text.width + config.vision.width)
        scores = rows * rows * joint
        tower = rows * _text_multiply_adds(config.text, dataset.num_tokens)
        total += 2 * _PASSES * (tower + projections + scores)
    return total


def _text_multiply_adds(text: TextTowerConfig, num_tokens: int) -> float:
    weights = 4 * text.width**2 + 2 * text.width * text.ffw_width
    attention = 2 * num_tokens * text.width
    return text.num_layers * num_tokens * (weights + attention)
