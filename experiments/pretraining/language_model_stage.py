"""A language model's own training: what a recipe of it trains, and what its datasets must be."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from flax import nnx

from experiments.planning import summary
from experiments.pretraining import language_model_report
from experiments.pretraining.heldout_text import HeldoutText
from experiments.pretraining.stage_run import Data, Design, check, prepare
from experiments.training import datasets
from flamingo_jax.config import LanguageModelConfig, from_dict
from flamingo_jax.models.lm import LanguageModel
from flamingo_jax.train import language_model_flops
from flamingo_jax.train.language_model_optim import LanguageModelOptimizerConfig, make_optimizer
from flamingo_jax.train.language_model_step import make_train_step
from flamingo_jax.weights.language_models import pretrained_lm

CHAPTER = language_model_report.CHAPTER


def model(config: Any) -> LanguageModelConfig:
    """The recipe's language model, checked."""
    return from_dict(LanguageModelConfig, config.model.to_dict(), "model.")


def design(config: Any, platform: str | None = None) -> Design:
    """Of a recipe, an `ml_collections.ConfigDict`; `platform` as of `pretraining.check`.

    Raises:
      ValueError: what does not hold together, with the key to set.
    """
    execution = check(config, "language_model", platform)
    lm = model(config)
    settings = from_dict(LanguageModelOptimizerConfig, config.optim.to_dict(), "optim.")
    optimizer = make_optimizer(settings, config.steps)
    for use in ("train", "validation"):
        for name, dataset in config.data[use].items():
            _check_texts(f"data.{use}.{name}", dataset, lm)
    return Design(
        lm,
        lambda rngs: LanguageModel(lm, execution, rngs=rngs),
        execution.scan,
        config.dtypes.compute,
        None,
        optimizer,
        settings.schedule(config.steps),
        functools.partial(
            make_train_step,
            dtype=config.dtypes.compute,
            optimizer=optimizer,
            weights=datasets.weights(config),
        ),
        language_model_flops.train_step(lm, summary.streams(config).values()),
    )


def data(config: Any) -> Data:
    """The recipe's mesh, tokenizer and datasets; ValueError as `prepare`."""
    return prepare(config, model(config).vocab_size)


def measure(
    config: Any, data: Data, graph: nnx.GraphDef, reading: Mapping[str, Any]
) -> HeldoutText:
    """What a run looks at besides."""
    return HeldoutText(
        data.validation,
        data.tokenizer,
        graph,
        data.mesh,
        dtype=config.dtypes.compute,
        every=config.validate_every,
        num_batches=config.validation_batches,
        reading=reading,
    )


def save(folder: pathlib.Path, config: Any, params: Any) -> None:
    """The model, as a Flamingo reads it."""
    pretrained_lm.save(folder, model(config), params)


def _check_texts(field: str, dataset: Any, lm: LanguageModelConfig) -> None:
    """ValueError for rows of media, or longer than there are positions for."""
    if dataset.kind != "text":
        raise ValueError(f"{field}.kind={dataset.kind!r}: a language model reads kind='text'")
    if lm.positions == "learned" and dataset.num_tokens > lm.max_length:
        raise ValueError(
            f"{field}.num_tokens={dataset.num_tokens}: learned positions end at "
            f"model.max_length={lm.max_length}: use that or fewer"
        )
