"""One update of a language model by itself, as Chinchilla was trained (Hoffmann et al. 2022)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from flamingo_jax.batch import Batch
from flamingo_jax.core import partition
from flamingo_jax.train.losses import next_token_targets
from flamingo_jax.train.state import TrainState
from flamingo_jax.train.token_loss import token_loss

Array = jax.Array
Tree = Any
Metrics = dict[str, Array]


def text_loss(graph: nnx.GraphDef, params: Tree, dtype: str, batch: Batch) -> tuple[Array, Array]:
    """f32[] sums over a batch's targets: of their losses in nats, and of ones."""
    model = nnx.merge(graph, params)
    context = model.context(batch.token_mask, segments=batch.segments)
    x = model.embedding[...][batch.tokens].astype(dtype)
    hidden, _ = model.hidden(x, context)
    targets, weights = next_token_targets(batch.tokens, batch.loss_mask)
    total, _ = token_loss(
        hidden,
        model.output_embedding,
        targets,
        weights,
        cap=model.config.logits_softcap,
        shards=partition.batch_shards(),
    )
    return total, weights.sum()


def make_train_step(
    graph: nnx.GraphDef,
    dtype: str,
    optimizer: optax.GradientTransformation,
    weights: Mapping[str, float],
) -> Callable[[TrainState, Tree, dict[str, Batch]], tuple[TrainState, Metrics]]:
    """A function (state, nothing frozen, batches by dataset) -> (state, metrics), to be jitted.

    Each dataset's mean loss a token counts by its weight, and one step is made of all.
    """

    def loss(params: Tree, batch: Batch) -> Array:
        total, count = text_loss(graph, params, dtype, batch)
        return total / jnp.maximum(count, 1.0)

    def train_step(state: TrainState, _: Tree, batches: dict[str, Batch]):
        grads, metrics, total = None, {}, 0.0
        for name in filter(batches.__contains__, weights):
            value, of_one = jax.value_and_grad(loss)(state.trainable, batches[name])
            of_one = jax.tree.map(lambda g, weight=weights[name]: weight * g, of_one)
            grads = of_one if grads is None else jax.tree.map(jnp.add, grads, of_one)
            metrics[f"loss/{name}"] = value
            total += weights[name] * value
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
        params = optax.apply_updates(state.trainable, updates)
        metrics |= {"loss": total, "grad_norm": optax.global_norm(grads)}
        return TrainState(state.step + 1, params, opt_state, state.key), metrics

    return train_step
