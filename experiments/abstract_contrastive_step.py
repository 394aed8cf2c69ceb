"""The contrastive stage's step and everything it takes, as shapes with shardings."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from experiments import summary
from experiments.abstract_step import AbstractStep, batch_of, struct
from flamingo_jax.config import from_dict
from flamingo_jax.contrastive_config import TwoTowersConfig
from flamingo_jax.core import params as params_lib
from flamingo_jax.core import partition
from flamingo_jax.core.stack import Execution
from flamingo_jax.models import vision
from flamingo_jax.models.two_towers import TwoTowers
from flamingo_jax.train import contrastive_flops
from flamingo_jax.train.contrastive_optim import ContrastiveOptimizerConfig, make_optimizer
from flamingo_jax.train.contrastive_step import make_train_step
from flamingo_jax.train.state import TrainState


def describes(recipe: Any) -> bool:
    """Whether a recipe is of the contrastive stage: it has a text tower."""
    return "text" in recipe.model


def make(recipe: Any, mesh: Mesh) -> AbstractStep:
    """The step of a recipe (an `ml_collections.ConfigDict`) on a mesh.

    Raises:
      ValueError: a config that does not hold together, or a batch that the mesh does not divide.
    """
    towers = from_dict(TwoTowersConfig, recipe.model.to_dict(), "model.")
    vision.check(towers.vision)
    execution = from_dict(Execution, recipe.execution.to_dict(), "execution.")
    settings = from_dict(ContrastiveOptimizerConfig, recipe.optim.to_dict(), "optim.")
    optimizer = make_optimizer(settings, recipe.steps)
    datasets = summary.streams(recipe)
    for name, dataset in datasets.items():
        partition.check_batch(f"data.train.{name}", dataset.batch_size, mesh)
    compute = recipe.dtypes.compute
    graph, shapes, axes = params_lib.abstract(
        lambda rngs: TwoTowers(towers, execution, dtype=compute, rngs=rngs)
    )
    where = partition.shardings(axes, shapes, mesh)
    params = jax.tree.map(lambda s, w: struct(s.shape, s.dtype, w), shapes, where)
    everywhere = partition.replicated(mesh)
    opt_state = optax.tree_utils.tree_map_params(
        optimizer,
        lambda s, w: struct(s.shape, s.dtype, w),
        jax.eval_shape(optimizer.init, params),
        where,
        transform_non_params=lambda s: struct(s.shape, s.dtype, everywhere),
    )
    key = struct((2,), "uint32", everywhere)
    state = TrainState(struct((), jnp.int32, everywhere), params, opt_state, key)
    size = towers.vision.preprocessing.size_px
    pixels = (size, size, 3), "uint8"
    pictures = sum(d.batch_size for d in datasets.values())
    platform = mesh.devices.flat[0].platform
    return AbstractStep(
        step=make_train_step(
            graph, optimizer, {name: d.weight for name, d in recipe.data.train.items()}
        ),
        state=state,
        frozen={},
        batches={name: batch_of(d, *pixels, mesh) for name, d in datasets.items()},
        microbatches=1,
        mesh=mesh,
        platform=platform,
        model_flops=contrastive_flops.texts(towers, datasets.values())
        + pictures * contrastive_flops.per_picture(towers.vision),
        compiler_options=dict(recipe.compiler_options.get(platform, {})),
    )
