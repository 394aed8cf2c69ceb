"""The step of a stage before Flamingo's and everything it takes, as shapes with shardings."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from experiments.planning import summary
from experiments.planning.abstract_step import AbstractStep, batch_of, struct
from experiments.pretraining import contrastive_stage, language_model_stage
from flamingo_jax.core import partition
from flamingo_jax.train.state import TrainState

_STAGES = {"contrastive": contrastive_stage, "language_model": language_model_stage}


def make(recipe: Any, mesh: Mesh) -> AbstractStep:
    """The step of a recipe (an `ml_collections.ConfigDict`) on a mesh.

    Raises:
      ValueError: a config that does not hold together, or a batch that the mesh does not divide.
    """
    platform = mesh.devices.flat[0].platform
    design = _STAGES[recipe.stage].design(recipe, platform)
    datasets = summary.streams(recipe)
    for name, dataset in datasets.items():
        partition.check_batch(f"data.train.{name}", dataset.batch_size, mesh)
    graph, shapes, where = design.shapes(mesh)
    params = jax.tree.map(lambda s, w: struct(s.shape, s.dtype, w), shapes, where)
    everywhere = partition.replicated(mesh)
    opt_state = optax.tree_utils.tree_map_params(
        design.optimizer,
        lambda s, w: struct(s.shape, s.dtype, w),
        jax.eval_shape(design.optimizer.init, params),
        where,
        transform_non_params=lambda s: struct(s.shape, s.dtype, everywhere),
    )
    key = struct((2,), "uint32", everywhere)
    size = design.preprocessing.size_px if design.preprocessing else 1
    pixels = (size, size, 3), "uint8"
    pictures = sum(d.batch_size for d in datasets.values())
    return AbstractStep(
        step=design.train_step(graph),
        state=TrainState(struct((), jnp.int32, everywhere), params, opt_state, key),
        frozen={},
        batches={name: batch_of(d, *pixels, mesh) for name, d in datasets.items()},
        microbatches=1,
        mesh=mesh,
        platform=platform,
        model_flops=design.flops + pictures * design.flops_per_picture,
        compiler_options=dict(recipe.compiler_options.get(platform, {})),
    )
