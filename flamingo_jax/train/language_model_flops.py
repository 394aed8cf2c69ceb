"""Floating-point operations of a language model's own step, counted as `flops` counts."""

from collections.abc import Iterable

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.train import flops

_PASSES = 3  # the head's; its second look at the scores is not counted, as no remat is


def train_step(config: LanguageModelConfig, datasets: Iterable[flops.Dataset]) -> float:
    """Of all datasets' batches: blocks and head, forward and both gradients."""
    total = 0.0
    for dataset in datasets:
        batch = flops.Batch(dataset.batch_size, dataset.num_tokens, num_media=0)
        blocks = flops.blocks(config, batch, range(config.num_layers), weights=True)
        head = 2 * dataset.batch_size * dataset.num_tokens * config.width * config.vocab_size
        total += blocks.total + _PASSES * head
    return total
