"""A recipe's finished model that answers prompts, as shapes with shardings: no array is made."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from experiments.planning.abstract_step import struct
from flamingo_jax.batch import Batch
from flamingo_jax.config import DTypePolicy, FlamingoConfig, from_dict
from flamingo_jax.core import kernels, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.decode import beam, serving
from flamingo_jax.models.flamingo import Flamingo

Tree = Any


@dataclasses.dataclass(frozen=True)
class Asked:
    """Prompts of one shape, and what is written after them."""

    prompts: int  # in a call
    tokens: int  # of each, with padding
    media: int  # pictures of each
    beams: int
    max_tokens: int


@dataclasses.dataclass(frozen=True)
class AbstractServing:
    """What a finished model would run, and shapes of what it would pass."""

    config: FlamingoConfig
    graph: nnx.GraphDef
    params: Tree
    mesh: Mesh
    platform: str

    def lower_answer(self, asked: Asked) -> jax.stages.Lowered:
        """Prefill and beam search, as `Model.generate` runs them."""

        def answer(params: Tree, batch: Batch) -> Any:
            model = nnx.merge(self.graph, params)
            ids = {"stop_ids": (self.config.vocab_size - 1,), "pad_id": 0}
            size = {"num_beams": asked.beams, "max_tokens": asked.max_tokens}
            return beam.beam_search(model, batch, **size, **ids)

        everywhere = partition.replicated(self.mesh)
        jitted = jax.jit(answer, out_shardings=everywhere)
        with jax.set_mesh(self.mesh):
            traced = jitted.trace(self.params, self._batch(asked))
            return traced.lower(lowering_platforms=(self.platform,))

    def _batch(self, asked: Asked) -> Batch:
        size = self.config.vision.preprocessing.size_px
        text, media = (asked.prompts, asked.tokens), (asked.prompts, asked.media, 1)

        def rows(shape: tuple[int, ...], dtype: str) -> jax.ShapeDtypeStruct:
            axes = ("batch", *[None] * (len(shape) - 1))
            return struct(shape, jnp.dtype(dtype), partition.cut(shape, axes, self.mesh))

        return Batch(
            tokens=rows(text, "int32"),
            token_mask=rows(text, "bool"),
            loss_mask=rows(text, "bool"),
            media_index=rows(text, "int32"),
            media=rows((*media, size, size, 3), "uint8"),
            media_mask=rows(media, "bool"),
        )


def make(recipe: Any, mesh: Mesh, platform: str | None = None) -> AbstractServing:
    """The finished model of a recipe (an `ml_collections.ConfigDict`) on a mesh.

    Raises:
      ValueError: a config that does not hold together, a width that the mesh does not divide.
    """
    config = from_dict(FlamingoConfig, recipe.model.to_dict(), "model.")
    policy = from_dict(DTypePolicy, recipe.dtypes.to_dict(), "dtypes.")
    platform = platform or mesh.devices.flat[0].platform
    execution = Execution(attention=kernels.resolve("auto", platform))
    graph, shapes, _ = params_lib.abstract(
        lambda rngs: Flamingo(config, execution, dtype=policy.compute, rngs=rngs)
    )
    where, dtypes = serving.formats(config, mesh), serving.dtypes(config, policy)
    params = jax.tree.map(lambda s, w, dtype: struct(s.shape, dtype, w), shapes, where, dtypes)
    return AbstractServing(config, graph, params, mesh, platform)
