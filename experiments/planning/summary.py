"""What a recipe's model holds and costs, from shapes alone: what `experiments.summarize` prints."""

from collections.abc import Collection, Iterable
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import AbstractMesh, AxisType, NamedSharding

from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.config import DTypePolicy, FlamingoConfig, from_dict
from flamingo_jax.core import kernels, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.models import vision
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.train import flops, joined, optim, validation

Tree = Any
Path = tuple[str, ...]


def summarize(recipe: Any, num_devices: int | None = None) -> dict[str, Any]:
    """The summary of a recipe (an `ml_collections.ConfigDict`) as JSON values.

    Raises:
      ValueError: a config that does not hold together, or a mesh that does not fit.
    """
    if recipe.stage != "flamingo":
        raise ValueError(
            f"this recipe is of stage={recipe.stage!r}, and Flamingo's alone are summarized: what "
            "it takes on a TPU slice, experiments.aot_compile says"
        )
    config = from_dict(FlamingoConfig, recipe.model.to_dict(), "model.")
    vision.check(config.vision)
    execution = from_dict(Execution, recipe.execution.to_dict(), "execution.")
    kernels.resolve(execution.attention, kernels.PLATFORMS.get(execution.attention, ("cpu",))[0])
    policy = from_dict(DTypePolicy, recipe.dtypes.to_dict(), "dtypes.")
    optimizer = optim.make_optimizer(
        from_dict(optim.OptimizerConfig, recipe.optim.to_dict(), "optim.")
    )
    mesh = abstract_mesh(recipe.mesh.to_dict(), num_devices)
    datasets = streams(recipe)
    for name, stream in datasets.items():
        partition.check_batch(f"data.train.{name}", stream.batch_size, mesh, recipe.microbatches)
    if recipe.join_datasets:
        joined.check(config, {name: d.num_media for name, d in datasets.items()})
    for name, dataset in recipe.data.validation.items():
        validation.check_batch(f"data.validation.{name}", dataset.batch_size, mesh)
    # Stacked layers whatever the recipe's execution: the same parameters, and few leaves.
    _, shapes, axes = params_lib.abstract(lambda rngs: Flamingo(config, Execution(), rngs=rngs))
    also = config.trained
    trainable, frozen = typed(shapes, policy, also)
    where = traverse_util.flatten_dict(partition.shardings(axes, shapes, mesh, also))
    opt_state = jax.eval_shape(optimizer.init, trainable)
    batches = {n: flops.Batch.of(s, recipe.microbatches) for n, s in datasets.items()}
    return {
        "variant": recipe.variant,
        "mesh": dict(mesh.shape),
        "num_devices": mesh.size,
        "parameters": {
            name: {
                "count": params_lib.count(tree),
                "trained": params_lib.is_trainable((name,), also),
                "dtype": str(jax.tree.leaves(tree)[0].dtype),
                "bytes_per_device": shard_bytes(leaves({name: tree}), where),
            }
            for name, tree in in_reading_order(frozen | trainable)
        },
        "bytes_per_device": {
            "frozen_parameters": shard_bytes(leaves(frozen), where),
            "trained_parameters": shard_bytes(leaves(trainable), where),
            "gradients": shard_bytes(leaves(typed(trainable, policy, also, "float32")[0]), where),
            "optimizer_state": shard_bytes(leaves(opt_state), where),
        },
        "flops_per_step": costs(config, recipe, batches),
    }


def in_reading_order(parts: dict[str, Tree]) -> list[tuple[str, Tree]]:
    """From pictures to text."""
    order = ["vision", "resampler", "gated_xattn", "language_model", "graft", "new_tokens"]
    return sorted(parts.items(), key=lambda part: order.index(part[0]))


def abstract_mesh(sizes: dict[str, int], num_devices: int | None) -> AbstractMesh:
    """The recipe's mesh over devices that need not be there; an axis of -1 takes what is left."""
    sizes = partition.mesh_sizes(**sizes, num_devices=num_devices)
    types_ = (AxisType.Auto,) * len(sizes)
    return AbstractMesh(tuple(sizes.values()), tuple(sizes), axis_types=types_)


def typed(
    shapes: Tree, policy: DTypePolicy, also: Collection[str], dtype: str | None = None
) -> tuple[Tree, Tree]:
    """(trainable, frozen) shapes in the dtypes they are kept in, or all in `dtype`.

    `also` as of `params.split`.
    """

    def to(tree, dtype):
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), tree)

    trainable, frozen = params_lib.split(shapes, also)
    return to(trainable, dtype or policy.trainable), to(frozen, dtype or policy.frozen)


def leaves(tree: Tree) -> Iterable[tuple[Path, jax.ShapeDtypeStruct]]:
    """Leaves with the path of the parameter that they belong to, as the moments of Adam do."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield tuple(key.key for key in path if isinstance(key, jax.tree_util.DictKey)), leaf


def shard_bytes(
    leaves: Iterable[tuple[Path, jax.ShapeDtypeStruct]], where: dict[Path, NamedSharding]
) -> int:
    """Bytes on one device; what belongs to no parameter, such as a count, is whole on each."""
    total = 0
    for path, leaf in leaves:
        shape = where[path].shard_shape(leaf.shape) if path in where else leaf.shape
        total += int(np.prod(shape)) * leaf.dtype.itemsize
    return total


def streams(recipe: Any) -> dict[str, StreamConfig]:
    """The training datasets of the recipe, wherever they are; ValueError where one cannot be."""
    return {
        name: StreamConfig.of(name, dataset, data_dir="")
        for name, dataset in recipe.data.train.items()
    }


def costs(config: FlamingoConfig, recipe: Any, batches: dict[str, flops.Batch]) -> dict[str, Any]:
    """FLOPs of a step, by component and pass, and of the visit to each dataset."""
    encode_media = not recipe.data.cache_features
    components = flops.step(
        config, batches.values(), encode_media=encode_media, accumulate=recipe.accumulate
    )
    visits = {
        name: flops.batch(config, b, encode_media=encode_media) for name, b in batches.items()
    }
    return {
        "components": {
            name: {
                "forward": passes.forward,
                "activation_gradients": passes.activations,
                "weight_gradients": passes.weights,
                "total": passes.total,
            }
            for name, passes in components.items()
        },
        "forward": sum(passes.forward for passes in components.values()),
        "total": sum(passes.total for passes in components.values()),
        "datasets": {
            name: {
                "sequences": b.size,
                "tokens": b.size * b.num_tokens,
                "frames": b.size * b.num_media * b.num_frames,
                "total": sum(passes.total for passes in visits[name].values()),
            }
            for name, b in batches.items()
        },
        "accumulate": recipe.accumulate,
        "join_datasets": recipe.join_datasets,
        "microbatches": recipe.microbatches,
        "encode_media": encode_media,
    }
