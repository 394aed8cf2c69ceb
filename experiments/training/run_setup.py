"""What a recipe asks of a training run, all of it checked before any parameter is made."""

import pathlib
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from data_pipelines.streams.stream_config import StreamConfig
from experiments.frozen import frozen_features, parts
from experiments.storage import given_model
from experiments.training import datasets, processes, stages
from experiments.training.profiling import parse_steps
from flamingo_jax import same_model
from flamingo_jax.config import from_dict
from flamingo_jax.core import hosts, kernels, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution
from flamingo_jax.model_directory import ModelCard
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.train import joined, optim, validation

Tree = Any
_AT_LEAST = {  # of any run
    "steps": 1,
    "log_every": 1,
    "checkpoint_every": 1,
    "keep_checkpoints": 1,
    "keep_every": 0,
    "stall_minutes": 0,
    "validate_every": 0,
    "validation_batches": 1,
}
_AT_LEAST_OF_FLAMINGO = {
    "microbatches": 1,
    "report.num_queries": 0,
    "report.num_candidates": 2,
    "report.num_captions": 2,  # CIDEr's idf is 0 with one
    "report.num_support": 0,
    "report.max_tokens": 1,
}


class Setup(NamedTuple):
    """A run that can begin."""

    card: ModelCard
    execution: Execution
    optimizer: optim.OptimizerConfig
    streams: list[StreamConfig]
    validation: dict[str, StreamConfig]
    profile_steps: tuple[int, int] | None
    mesh: Mesh
    share: tuple[int, int]  # of the rows of a batch: which of how many this process reads
    graph: nnx.GraphDef
    where: tuple[Tree, Tree]  # shardings of trained and of frozen parameters
    init_from: pathlib.Path | None  # a finished model to train on from

    def make(self, rngs: Rngs) -> Flamingo:
        """The model, freshly initialised."""
        return _model(self.card, self.execution, rngs)


def check(config: Any) -> Setup:
    """The run that an `ml_collections.ConfigDict` describes; its packages and datasets are brought.

    Raises:
      ValueError: what does not hold together, with the key to set.
    """
    stages.check(config, "flamingo")
    check_numbers(config)
    execution = from_dict(Execution, config.execution.to_dict(), "execution.")
    optimizer = from_dict(optim.OptimizerConfig, config.optim.to_dict(), "optim.")
    frozen_features.check(config)
    profile_steps = parse_steps(config.profile.steps, config.steps)
    mesh = partition.make_mesh(**config.mesh)
    kernels.resolve(execution.attention, jax.default_backend())
    share = hosts.batch_share(mesh)
    with processes.one_at_a_time(datasets.lock_dir(config)):
        parts.bring(config.frozen.values())
    card = parts.model_card(config)
    graph, shapes, axes = params_lib.abstract(lambda rngs: _model(card, execution, rngs))
    also = card.config.trained
    where = params_lib.split(partition.shardings(axes, shapes, mesh, also), also)
    with processes.one_at_a_time(datasets.lock_dir(config)):
        datasets.prepare(config)
    init_from = given_model.folder("init_from", config.init_from) if config.init_from else None
    if init_from:
        same_model.check(init_from, card)
    streams = datasets.stream_configs(config)
    if config.join_datasets:
        joined.check(card.config, {stream.name: stream.num_media for stream in streams})
    held_out = datasets.validation_configs(config)
    datasets.check_heldout(config)
    for stream in streams:
        name = f"data.train.{stream.name}"
        partition.check_batch(name, stream.batch_size, mesh, config.microbatches)
        _check_num_tokens(name, stream, card)
    for stream in held_out.values():
        _check_num_tokens(stream.name, stream, card)
        validation.check_batch(stream.name, stream.batch_size, mesh)
    return Setup(
        card,
        execution,
        optimizer,
        streams,
        held_out,
        profile_steps,
        mesh,
        share,
        graph,
        where,
        init_from,
    )


def check_steps(steps: int, done: int) -> None:
    """ValueError where a checkpoint is behind the last step that the recipe asks for."""
    if done > steps:
        raise ValueError(
            f"steps={steps}: the newest checkpoint is of step {done}: ask for more steps, or give "
            "another workdir"
        )


def _check_num_tokens(name: str, stream: StreamConfig, card: ModelCard) -> None:
    """ValueError for rows that are longer than the language model has positions for."""
    lm = card.config.language_model
    if lm.positions == "learned" and stream.num_tokens > lm.max_length:
        raise ValueError(
            f"{name}.num_tokens={stream.num_tokens}: the language model's learned positions "
            f"end at {lm.max_length}: use that or fewer"
        )


def _check_at_least(config: Any, limits: dict[str, int]) -> None:
    for key, least in limits.items():
        value = config
        for name in key.split("."):
            value = value[name]
        if value < least:
            raise ValueError(f"{key}={value}: use {least} or more")


def check_run_numbers(config: Any) -> None:
    """ValueError for a number of any run that is too small to mean anything."""
    _check_at_least(config, _AT_LEAST)
    if config.keep_every % config.checkpoint_every:
        near = -(-config.keep_every // config.checkpoint_every) * config.checkpoint_every
        raise ValueError(
            f"keep_every={config.keep_every} keeps checkpoints that are made, each "
            f"checkpoint_every={config.checkpoint_every} steps: use a multiple, such as {near}"
        )


def check_numbers(config: Any) -> None:
    """ValueError for a number of a Flamingo's run that is too small to mean anything."""
    check_run_numbers(config)
    _check_at_least(config, _AT_LEAST_OF_FLAMINGO)
    if config.report.num_queries == 1:
        raise ValueError(
            "report.num_queries=1: use 2 or more, as each needs another's picture, or 0"
        )
    if any(shots < 0 for shots in config.report.shots):
        raise ValueError(f"report.shots={tuple(config.report.shots)}: use 0 or more")


def _model(card: ModelCard, execution: Execution, rngs: Rngs) -> Flamingo:
    return Flamingo(card.config, execution, dtype=card.dtypes.compute, rngs=rngs)
