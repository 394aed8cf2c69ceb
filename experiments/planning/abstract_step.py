"""A recipe's train step and everything it takes, as shapes with shardings: no array is made."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from data_pipelines.streams.stream_config import StreamConfig
from experiments.planning import summary
from flamingo_jax.batch import Batch
from flamingo_jax.config import DTypePolicy, FlamingoConfig, from_dict
from flamingo_jax.core import kernels, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.models import vision
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.train import flops, joined, optim
from flamingo_jax.train.state import TrainState
from flamingo_jax.train.step import make_train_step

Tree = Any


@dataclasses.dataclass(frozen=True)
class AbstractStep:
    """What `experiments.train` would jit, and shapes of what it would pass."""

    step: Any
    state: TrainState
    frozen: Tree
    batches: dict[str, Batch]
    microbatches: int  # that they are cut into
    mesh: Mesh
    platform: str
    model_flops: float  # of one step, all devices together, nothing counted twice
    compiler_options: dict[str, Any]  # XLA's, for this platform

    def lower(self) -> jax.stages.Lowered:
        """The step as a program for the platform, not yet compiled."""
        jitted = jax.jit(
            self.step,
            donate_argnums=0,
            compiler_options=self.compiler_options,
            out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, self.state), None),
        )
        with jax.set_mesh(self.mesh):
            traced = jitted.trace(self.state, self.frozen, self.batches)
            return traced.lower(lowering_platforms=(self.platform,))


def make(recipe: Any, mesh: Mesh, platform: str | None = None) -> AbstractStep:
    """The step of a recipe (an `ml_collections.ConfigDict`) on a mesh.

    With a `platform`, such as "cuda", the mesh's devices stand in for as many of that. Where a step
    visits one dataset (`accumulate` off), it is the dataset that costs most.

    Raises:
      ValueError: a config that does not hold together, a batch or a width that the mesh does not
        divide.
    """
    config = from_dict(FlamingoConfig, recipe.model.to_dict(), "model.")
    vision.check(config.vision)
    execution = from_dict(Execution, recipe.execution.to_dict(), "execution.")
    platform = platform or mesh.devices.flat[0].platform
    kernel = kernels.resolve(execution.attention, platform)
    execution = dataclasses.replace(execution, attention=kernel)
    policy = from_dict(DTypePolicy, recipe.dtypes.to_dict(), "dtypes.")
    optimizer = optim.make_optimizer(
        from_dict(optim.OptimizerConfig, recipe.optim.to_dict(), "optim.")
    )
    cached = recipe.data.cache_features
    datasets = summary.streams(recipe)
    if recipe.join_datasets:
        joined.check(config, {name: d.num_media for name, d in datasets.items()})
    for name, dataset in datasets.items():
        partition.check_batch(f"data.train.{name}", dataset.batch_size, mesh, recipe.microbatches)
    costs = {
        name: flops.train_step(
            config, [dataset], encode_media=not cached, num_microbatches=recipe.microbatches
        )
        for name, dataset in datasets.items()
    }
    if not recipe.accumulate:
        costliest = max(costs, key=costs.get)
        datasets, costs = {costliest: datasets[costliest]}, {costliest: costs[costliest]}
    graph, shapes, axes = params_lib.abstract(
        lambda rngs: Flamingo(config, execution, dtype=policy.compute, rngs=rngs)
    )
    also = config.trained
    where = params_lib.split(partition.shardings(axes, shapes, mesh, also), also)
    trainable, frozen = (
        jax.tree.map(lambda s, w, dtype=dtype: struct(s.shape, dtype, w), part, part_where)
        for part, part_where, dtype in zip(
            params_lib.split(shapes, also), where, (policy.trainable, policy.frozen), strict=True
        )
    )
    everywhere = partition.replicated(mesh)
    opt_state = optax.tree_utils.tree_map_params(
        optimizer,
        lambda s, w: struct(s.shape, s.dtype, w),
        jax.eval_shape(optimizer.init, trainable),
        where[0],
        transform_non_params=lambda s: struct(s.shape, s.dtype, everywhere),
    )
    state = TrainState(
        struct((), jnp.int32, everywhere),
        trainable,
        opt_state,
        struct((2,), "uint32", everywhere),
    )
    size = config.vision.preprocessing.size_px
    features = (config.vision.num_features, config.vision.width), "float32"
    item = features if cached else ((size, size, 3), "uint8")
    batches = {name: batch_of(d, *item, mesh) for name, d in datasets.items()}
    weights = {name: d.weight for name, d in recipe.data.train.items()}
    step = make_train_step(
        graph, config, optimizer, weights, recipe.microbatches, join_datasets=recipe.join_datasets
    )
    total = sum(costs.values())
    options = dict(recipe.compiler_options.get(platform, {}))
    parts = recipe.microbatches
    return AbstractStep(step, state, frozen, batches, parts, mesh, platform, total, options)


def struct(shape: tuple[int, ...], dtype: Any, where: NamedSharding) -> jax.ShapeDtypeStruct:
    """An array that is not there."""
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=where)


def batch_of(dataset: StreamConfig, item: tuple[int, ...], item_dtype: str, mesh: Mesh) -> Batch:
    """A batch of a dataset whose frames are each an array `item`."""
    b, t = dataset.batch_size, dataset.num_tokens
    if dataset.kind == "text":
        item, item_dtype = (1, 1, 3), "uint8"  # as `data_pipelines.streams.examples.NoMedia`
    packed = dataset.pairs_per_row > 1
    media = (b, dataset.num_media, dataset.num_frames)
    rows = partition.batch_sharding(mesh)
    return Batch(
        tokens=struct((b, t), "int32", rows),
        token_mask=struct((b, t), "bool", rows),
        loss_mask=struct((b, t), "bool", rows),
        media_index=struct((b, t), "int32", rows),
        media=struct((*media, *item), item_dtype, rows),
        media_mask=struct(media, "bool", rows),
        segments=struct((b, t), "int32", rows) if packed else None,
    )
