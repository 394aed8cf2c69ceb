"""What a recipe of the contrastive stage asks for, all of it checked before parameters are made."""

from typing import Any, NamedTuple

import optax
from flax import nnx
from jax.sharding import Mesh

from data_pipelines.stream_config import StreamConfig
from experiments import datasets, parts, processes, run_setup
from experiments.profiling import parse_steps
from flamingo_jax.config import from_dict
from flamingo_jax.contrastive_config import TwoTowersConfig
from flamingo_jax.core import hosts, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.models import vision
from flamingo_jax.models.two_towers import TwoTowers
from flamingo_jax.tokenizer import NEW_TOKENS, Tokenizer
from flamingo_jax.train import contrastive_optim

Tree = Any


class Setup(NamedTuple):
    """A run that can begin."""

    towers: TwoTowersConfig
    execution: Execution
    compute_dtype: str
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    tokenizer: Tokenizer
    streams: list[StreamConfig]
    validation: dict[str, StreamConfig]
    profile_steps: tuple[int, int] | None
    mesh: Mesh
    share: tuple[int, int]  # of the rows of a batch: which of how many this process reads
    graph: nnx.GraphDef
    where: Tree  # shardings of the parameters

    def make(self, rngs: nnx.Rngs) -> TwoTowers:
        """The model, freshly initialised."""
        return TwoTowers(self.towers, self.execution, dtype=self.compute_dtype, rngs=rngs)


def check(config: Any) -> Setup:
    """The run that an `ml_collections.ConfigDict` describes; its packages and datasets are brought.

    Raises:
      ValueError: what does not hold together, with the key to set.
    """
    run_setup.check_run_numbers(config)
    towers = from_dict(TwoTowersConfig, config.model.to_dict(), "model.")
    vision.check(towers.vision)
    execution = from_dict(Execution, config.execution.to_dict(), "execution.")
    settings = from_dict(
        contrastive_optim.ContrastiveOptimizerConfig, config.optim.to_dict(), "optim."
    )
    optimizer = contrastive_optim.make_optimizer(settings, config.steps)
    mesh = partition.make_mesh(**config.mesh)
    for use in ("train", "validation"):
        for name, dataset in config.data[use].items():
            _check_pairs(f"data.{use}.{name}", dataset, towers)
    with processes.one_at_a_time(datasets.data_dir(config)):
        parts.bring([config.tokenizer])
    tokenizer = _tokenizer(config, towers)
    with processes.one_at_a_time(datasets.data_dir(config)):
        datasets.prepare(config)
    streams = datasets.stream_configs(config)
    held_out = datasets.validation_configs(config)
    for stream in (*streams, *held_out.values()):
        partition.check_batch(stream.name, stream.batch_size, mesh)
    compute = config.dtypes.compute

    def make(rngs: nnx.Rngs) -> TwoTowers:
        return TwoTowers(towers, execution, dtype=compute, rngs=rngs)

    graph, shapes, axes = params_lib.abstract(make)
    return Setup(
        towers,
        execution,
        compute,
        optimizer,
        settings.schedule(config.steps),
        tokenizer,
        streams,
        held_out,
        parse_steps(config.profile.steps),
        mesh,
        hosts.batch_share(mesh),
        graph,
        partition.shardings(axes, shapes, mesh),
    )


def _check_pairs(field: str, dataset: Any, towers: TwoTowersConfig) -> None:
    """ValueError unless a row is one picture with one text."""
    for name, want in (("kind", "pair"), ("pairs_per_row", 1), ("num_frames", 1)):
        if dataset.get(name, want) != want:
            raise ValueError(
                f"{field}.{name}={dataset[name]!r}: the contrastive stage takes one picture and "
                f"one text a row, so use {want!r}"
            )
    if dataset.num_tokens > towers.text.max_length:
        raise ValueError(
            f"{field}.num_tokens={dataset.num_tokens}: use up to "
            f"model.text.max_length={towers.text.max_length}, or raise that"
        )


def _tokenizer(config: Any, towers: TwoTowersConfig) -> Tokenizer:
    """ValueError where it does not go with the text tower's rows."""
    source = parts.source("language_model", config.tokenizer, config.seed, "tokenizer")
    rows = towers.text.vocab_size
    found = parts.tokenizer_of(source, rows - len(NEW_TOKENS))
    if found.vocab_size != rows:
        raise ValueError(
            f"tokenizer={config.tokenizer!r} has {found.vocab_size} tokens: set "
            f"model.text.vocab_size={found.vocab_size}"
        )
    return found
