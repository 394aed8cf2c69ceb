"""One update of both towers: every dataset visited, its gradient weighted, all accumulated.

Paper: appendix B.1.3: a gradient of each dataset by itself, so that a picture is told from those of
its own dataset; summed, then one step (Table 11: 45.6 on ImageNet, merged batches 38.6).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from flamingo_jax.batch import Batch
from flamingo_jax.models.two_towers import TwoTowers
from flamingo_jax.train.contrastive import (
    contrastive_loss,
    mean_where,
    pair_scores,
    text_ids,
)
from flamingo_jax.train.state import TrainState

Array = jax.Array
Tree = Any
Metrics = dict[str, Array]


def embed(
    model: TwoTowers,
    batch: Batch,  # of pairs, one picture a row
    key: Array | None = None,  # in training
) -> tuple[Array, Array, Array]:
    """Pictures f32[B, J], texts f32[B, J], and bool[B], where there is a pair."""
    pictures = model.embed_pictures(batch.media[:, 0, 0], key)
    return pictures, model.embed_texts(batch.tokens, batch.token_mask), batch.media_mask[:, 0, 0]


def make_train_step(
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    weights: Mapping[str, float],
) -> Callable[[TrainState, Tree, dict[str, Batch]], tuple[TrainState, Metrics]]:
    """A function (state, nothing frozen, batches by dataset) -> (state, metrics), to be jitted.

    Metrics are `loss`, `loss/<dataset>`, `accuracy/<dataset>` (the share of pictures that are
    nearest to their own text, of the batch's), `inverse_temperature` and `grad_norm`.
    """

    def loss(params: Tree, batch: Batch, key: Array) -> tuple[Array, Array]:
        model = nnx.merge(graph, params)
        drawn = key if model.config.stochastic_depth else None
        pictures, texts, there = embed(model, batch, drawn)
        ids = text_ids(batch.tokens, batch.token_mask)
        value = contrastive_loss(
            pictures,
            texts,
            ids,
            model.inverse_temperature,
            mask=there,
            label_smoothing=model.config.label_smoothing,
        )
        nearest = ids[pair_scores(pictures, texts, mask=there).argmax(1)]
        return value, mean_where((nearest == ids).astype(jnp.float32), there)

    def train_step(state: TrainState, _: Tree, batches: dict[str, Batch]):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        grads, metrics, total = None, {}, 0.0
        for number, name in enumerate(filter(batches.__contains__, weights)):
            own = jax.random.fold_in(key, number)
            (value, accuracy), of_one = jax.value_and_grad(loss, has_aux=True)(
                state.trainable, batches[name], own
            )
            of_one = jax.tree.map(lambda g, weight=weights[name]: weight * g, of_one)
            grads = of_one if grads is None else jax.tree.map(jnp.add, grads, of_one)
            metrics |= {f"loss/{name}": value, f"accuracy/{name}": accuracy}
            total += weights[name] * value
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
        params = optax.apply_updates(state.trainable, updates)
        metrics |= {
            "loss": total,
            "grad_norm": optax.global_norm(grads),
            "inverse_temperature": jnp.exp(params["log_inverse_temperature"]),
        }
        return TrainState(state.step + 1, params, opt_state, state.key), metrics

    return train_step
