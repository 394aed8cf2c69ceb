"""The contrastive stage: what a recipe of it trains, and what its datasets must be."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from flax import nnx

from experiments.planning import summary
from experiments.pretraining import contrastive_report
from experiments.pretraining.retrieval import Retrieval
from experiments.pretraining.stage_run import Data, Design, check, prepare
from experiments.training import datasets
from flamingo_jax.config import from_dict
from flamingo_jax.contrastive_config import TwoTowersConfig
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.models import vision
from flamingo_jax.models.two_towers import TwoTowers
from flamingo_jax.tokenizer import NEW_TOKENS
from flamingo_jax.train import contrastive_flops
from flamingo_jax.train.contrastive_optim import ContrastiveOptimizerConfig, make_optimizer
from flamingo_jax.train.contrastive_step import make_train_step
from flamingo_jax.weights.encoders import two_towers

CHAPTER = contrastive_report.CHAPTER


def towers(config: Any) -> TwoTowersConfig:
    """The recipe's model, checked."""
    found = from_dict(TwoTowersConfig, config.model.to_dict(), "model.")
    vision.check(found.vision)
    return found


def design(config: Any, platform: str | None = None) -> Design:
    """Of a recipe, an `ml_collections.ConfigDict`; `platform` as of `pretraining.check`.

    Raises:
      ValueError: what does not hold together, with the key to set.
    """
    execution = check(config, "contrastive", platform)
    model = towers(config)
    settings = from_dict(ContrastiveOptimizerConfig, config.optim.to_dict(), "optim.")
    optimizer = make_optimizer(settings, config.steps)
    compute = config.dtypes.compute
    streams = summary.streams(config)
    for use in ("train", "validation"):
        for name, dataset in config.data[use].items():
            _check_pairs(f"data.{use}.{name}", dataset, model)

    def make(rngs: Rngs) -> TwoTowers:
        return TwoTowers(model, execution, dtype=compute, rngs=rngs)

    return Design(
        model,
        make,
        execution.scan,
        compute,
        model.vision.preprocessing,
        optimizer,
        settings.schedule(config.steps),
        functools.partial(make_train_step, optimizer=optimizer, weights=datasets.weights(config)),
        contrastive_flops.texts(model, streams.values()),
        contrastive_flops.per_picture(model.vision),
    )


def data(config: Any) -> Data:
    """The recipe's mesh, tokenizer and datasets; ValueError as `prepare`."""
    return prepare(config, towers(config).text.vocab_size - len(NEW_TOKENS))


def measure(config: Any, data: Data, graph: nnx.GraphDef, reading: Mapping[str, Any]) -> Retrieval:
    """What a run looks at besides."""
    return Retrieval(
        data.validation,
        data.tokenizer,
        graph,
        data.mesh,
        every=config.validate_every,
        num_batches=config.validation_batches,
        reading=reading,
    )


def save(folder: pathlib.Path, config: Any, params: Any) -> None:
    """Both towers, of which a Flamingo reads one."""
    two_towers.save(folder, towers(config), params)


def _check_pairs(field: str, dataset: Any, model: TwoTowersConfig) -> None:
    """ValueError unless a row is one picture with one text."""
    for name, want in (("kind", "pair"), ("pairs_per_row", 1), ("num_frames", 1)):
        if dataset.get(name, want) != want:
            raise ValueError(
                f"{field}.{name}={dataset[name]!r}: the contrastive stage takes one picture and "
                f"one text a row, so use {want!r}"
            )
    if dataset.num_tokens > model.text.max_length:
        raise ValueError(
            f"{field}.num_tokens={dataset.num_tokens}: use up to "
            f"model.text.max_length={model.text.max_length}, or raise that"
        )
