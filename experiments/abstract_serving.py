"""A recipe's finished model that answers prompts, as shapes with shardings: no array is made."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from experiments.abstract_step import struct
from flamingo_jax.batch import Batch
from flamingo_jax.config import DTypePolicy, FlamingoConfig, from_dict
from flamingo_jax.core import kernels, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.decode import beam, cache, serving, steps
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
        return self._lower(jax.jit(answer, out_shardings=everywhere), self._batch(asked))

    def lower_step(self, asked: Asked) -> jax.stages.Lowered:
        """One more token of every beam, behind the prompt."""

        def step(params: Tree, tokens: jax.Array, state: cache.DecodeState) -> Any:
            return steps.step(nnx.merge(self.graph, params), tokens, state)

        rows = dataclasses.replace(asked, prompts=asked.prompts * asked.beams)
        tokens = self._array((rows.prompts,), jnp.int32, "batch")
        return self._lower(jax.jit(step, donate_argnums=2), tokens, self._state(rows))

    def _lower(self, jitted: Any, *args: Tree) -> jax.stages.Lowered:
        with jax.set_mesh(self.mesh):
            return jitted.trace(self.params, *args).lower(lowering_platforms=(self.platform,))

    def _array(self, shape: tuple[int, ...], dtype: Any, *axes: str | None) -> jax.ShapeDtypeStruct:
        """Cut by logical axes, of which those that are not given are whole."""
        axes += (None,) * (len(shape) - len(axes))
        return struct(shape, dtype, partition.cut(shape, axes, self.mesh))

    def _batch(self, asked: Asked) -> Batch:
        size = self.config.vision.preprocessing.size_px
        text, media = (asked.prompts, asked.tokens), (asked.prompts, asked.media, 1)

        def rows(shape: tuple[int, ...], dtype: str) -> jax.ShapeDtypeStruct:
            return self._array(shape, dtype, "batch")

        return Batch(
            tokens=rows(text, "int32"),
            token_mask=rows(text, "bool"),
            loss_mask=rows(text, "bool"),
            media_index=rows(text, "int32"),
            media=rows((*media, size, size, 3), "uint8"),
            media_mask=rows(media, "bool"),
        )

    def _state(self, asked: Asked) -> cache.DecodeState:
        """Of so many rows, as `steps.prefill` leaves it."""

        def prefill(params: Tree, batch: Batch) -> cache.DecodeState:
            return steps.prefill(nnx.merge(self.graph, params), batch, asked.max_tokens)[1]

        state = jax.eval_shape(prefill, self.params, self._batch(asked))
        axes = {"cache": cache.CACHE_AXES, "media_keys": cache.MEDIA_AXES, "index": ()}

        def placed(field: str, value: Tree) -> Tree:
            own = axes.get(field, ("batch",))
            return jax.tree.map(lambda s: self._array(s.shape, s.dtype, *own), value)

        fields = {field: placed(field, value) for field, value in state._asdict().items()}
        return cache.DecodeState(**fields)


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
    parts = zip(
        params_lib.split(shapes, config.trained),
        params_lib.split(serving.shardings(config, mesh), config.trained),
        (policy.trainable, policy.frozen),
        strict=True,
    )
    placed = [
        jax.tree.map(lambda s, w, dtype=dtype: struct(s.shape, dtype, w), tree, where)
        for tree, where, dtype in parts
    ]
    return AbstractServing(config, graph, params_lib.merge(*placed), mesh, platform)
