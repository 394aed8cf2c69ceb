"""A run that trains one of Flamingo's parts before Flamingo: what the two stages share.

A stage (`contrastive_stage`, `language_model_stage`) gives the `Design` of a recipe, which needs
neither data nor devices, says how its datasets must be, what is measured, and what comes of it.
Here the run is made of that: checked, begun or gone on with, and taken to its end.
"""

import dataclasses
import functools
import pathlib
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import optax
from flax import nnx
from jax.sharding import Mesh

from data_pipelines.streams.mixture import Mixture
from data_pipelines.streams.stream_config import StreamConfig
from experiments import cli
from experiments.pretraining import stage_report, tokenizers
from experiments.pretraining.stage_report import Chapter
from experiments.storage.workdir import Workdir
from experiments.training import datasets, processes, run_loop, run_setup, run_start, stages
from experiments.training.profiling import parse_steps
from experiments.training.run_log import RunLog
from experiments.training.run_report import Clock
from flamingo_jax.config import DTypePolicy, ImagePreprocessing, from_dict
from flamingo_jax.core import hosts, kernels, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution, reroll
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.train import state
from flamingo_jax.weights import stage_folder
from flamingo_jax.weights.files import folders

Tree = Any


class Design(NamedTuple):
    """What a recipe trains, and how."""

    model: Any  # its config, a dataclass
    make: Callable[[Rngs], nnx.Module]
    scan: bool  # whether its layers are stacked
    compute_dtype: str
    preprocessing: ImagePreprocessing | None  # None: rows have no pictures
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    train_step: Callable[[nnx.GraphDef], run_loop.Step]
    flops: float  # of a step, but for the encoder's of pictures
    flops_per_picture: float = 0.0

    def shapes(self, mesh: Mesh) -> tuple[nnx.GraphDef, Tree, Tree]:
        """Graph, shapes and shardings of the parameters."""
        graph, shapes, axes = params_lib.abstract(self.make)
        return graph, shapes, partition.shardings(axes, shapes, mesh)


class Data(NamedTuple):
    """What is read, and on which devices."""

    mesh: Mesh
    share: tuple[int, int]  # of the rows of a batch: which of how many this process reads
    tokenizer: Tokenizer
    streams: list[StreamConfig]
    validation: dict[str, StreamConfig]


class Stage(Protocol):
    """What the module of a stage has."""

    CHAPTER: Chapter  # of the report

    def design(self, config: Any, platform: str | None = None) -> Design: ...
    def data(self, config: Any) -> Data: ...
    def measure(
        self, config: Any, data: Data, graph: nnx.GraphDef, reading: Mapping[str, Any]
    ) -> run_loop.Measure: ...
    def save(self, folder: pathlib.Path, config: Any, params: Tree) -> None: ...


class Finished(NamedTuple):
    """A run at its end, in the one process that writes what comes of it."""

    params: Tree  # of stacked layers, on the host
    place: dict[str, Any]  # in the data


def check(config: Any, stage: str, platform: str | None = None) -> Execution:
    """How the layers run, of a recipe whose settings of any run hold together.

    `platform` is the one that its step is compiled for, the default one if not given; the kernel of
    attention is that platform's.

    Raises:
      ValueError: what does not hold together, with the key to set.
    """
    stages.check(config, stage)
    run_setup.check_run_numbers(config)
    parse_steps(config.profile.steps, config.steps)
    from_dict(DTypePolicy, config.dtypes.to_dict(), "dtypes.")
    execution = from_dict(Execution, config.execution.to_dict(), "execution.")
    kernel = kernels.resolve(execution.attention, platform or jax.default_backend())
    return dataclasses.replace(execution, attention=kernel)


def prepare(config: Any, num_rows: int) -> Data:
    """The recipe's mesh, tokenizer and datasets, brought and checked; `num_rows` of the embedding.

    Raises:
      ValueError: what does not hold together, with the key to set.
    """
    mesh = partition.make_mesh(**config.mesh)
    with processes.one_at_a_time(datasets.lock_dir(config)):
        tokenizer = tokenizers.make(config.tokenizer, num_rows)
        datasets.prepare(config)
    streams, held_out = datasets.stream_configs(config), datasets.validation_configs(config)
    for stream in streams:
        partition.check_batch(f"data.train.{stream.name}", stream.batch_size, mesh)
    for stream in held_out.values():
        partition.check_batch(stream.name, stream.batch_size, mesh)
    return Data(mesh, hosts.batch_share(mesh), tokenizer, streams, held_out)


def command(stage: Stage, config: Any, workdir: str) -> int:
    """A whole command: trains, then writes the part and the report; its exit status."""
    with Workdir.given("--workdir", workdir) as place:
        return _command(stage, config, place)


def _command(stage: Stage, config: Any, workdir: Workdir) -> int:
    began = time.monotonic()
    with cli.user_input():
        processes.start()
        clock = run_start.clock(workdir, began)
        design, data = stage.design(config), stage.data(config)

    def measure(graph: nnx.GraphDef, reading: Mapping[str, Any]) -> run_loop.Measure:
        return stage.measure(config, data, graph, reading)

    def save(directory: pathlib.Path, params: Tree) -> None:
        with folders.whole(directory) as folder:
            stage.save(folder, config, params)
            data.tokenizer.to_file(folder / stage_folder.TOKENIZER)

    finished = run(config, workdir, design, data, clock, measure, save)
    if isinstance(finished, signal.Signals):
        return 128 + finished
    if finished is None:
        return 0
    save(workdir.folder / "model", finished.params)
    stage_report.write(workdir.folder, stage.CHAPTER, config.variant, finished.place, clock)
    print(f"model: {workdir}/model\nreport: {workdir}/report.md")
    return 0


def run(
    config: Any,
    workdir: Workdir,
    design: Design,
    data: Data,
    clock: Clock,
    measure: Callable[[nnx.GraphDef, Mapping[str, Any]], run_loop.Measure],
    save: Callable[[pathlib.Path, Tree], None],
) -> Finished | signal.Signals | None:
    """Trains to `config.steps`; the signal that stopped it, or None in all processes but one.

    `measure` makes what is measured beside, of the graph and of what a `Stream` takes, and `save`
    writes the folder of a part with the parameters that it is given.
    """
    mesh, (share, num_shares) = data.mesh, data.share
    graph, _, where = design.shapes(mesh)
    run_start.open_for_all(workdir, clock)
    params = params_lib.init(design.make, config.seed, where=where)
    now = state.create(params, design.optimizer, config.seed, mesh)
    del params
    checkpoints, now, place = run_start.restore(config, workdir, now, design.model)
    reading = {
        "preprocessing": design.preprocessing,
        "process_index": share,
        "process_count": num_shares,
    }
    with cli.user_input():
        mixture = Mixture(data.streams, data.tokenizer, **reading, state=place)
    start = int(now.step)
    run_start.note(config, workdir, start, functools.partial(save, params={}))
    log = RunLog(
        workdir.folder,
        start,
        share=share,
        flops=design.flops,
        flops_per_frame=design.flops_per_picture,
        num_devices=mesh.size,
        compute_dtype=design.compute_dtype,
    )
    stop = processes.StopRequest()
    train_step = jax.jit(
        design.train_step(graph),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, now), None),
        compiler_options=dict(config.compiler_options.get(jax.default_backend(), {})),
    )
    now, stopped = run_loop.run(
        config,
        workdir,
        now,
        {},  # nothing is frozen
        train_step,
        mixture,
        mesh=mesh,
        log=log,
        checkpoints=checkpoints,
        validation=measure(graph, reading),
        schedule=design.schedule,
        profile_steps=parse_steps(config.profile.steps, config.steps),
        stop=stop,
        clock=clock,
    )
    if stopped:
        return stopped
    place = log.place(mixture)
    params = processes.to_host(now.trainable)
    last = processes.part()
    stop.release()
    for writer in log.writers:
        writer.close()
    return Finished(params if design.scan else reroll(params), place) if last else None
