"""One update: every dataset of the mixture visited, its gradient weighted, all accumulated.

Paper, section 2.4 and appendix B.1.2: one gradient a dataset and update, weighted by lambda and
summed before a single optimizer step; better than visiting the datasets round-robin (70.7 to 62.9),
which is the same step given a batch of one dataset at a time. The gradients are computed one after
the other, or in one pass over the rows of all (`joined`), which gives their sum at once.

Batches too large for the memory are cut into microbatches. A part's loss is its sum over the number
of targets of the whole batch, so that losses and gradients of the parts add up to the batch's.

A language model that is trained along (Table 3, row viii) has all its rows in the loss. An encoder
that is (Table 10, row v) gets the gradients of all datasets' features together, in one way back.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from flamingo_jax.batch import Batch
from flamingo_jax.config import CrossAttentionConfig, FlamingoConfig
from flamingo_jax.core import params
from flamingo_jax.core.stack import Segment, reroll
from flamingo_jax.models.insertion import cross_attention_segments
from flamingo_jax.train import joined, microbatches
from flamingo_jax.train.flamingo_loss import flamingo_loss
from flamingo_jax.train.losses import next_token_targets
from flamingo_jax.train.state import TrainState

Tree = Any
Metrics = dict[str, jax.Array]


def batch_loss(
    graph: nnx.GraphDef,
    trainable: Tree,
    frozen: Tree,
    batch: Batch,
    count: jax.Array | None = None,  # f32[], targets of the whole batch where this is a part
) -> jax.Array:
    """Mean negative log-likelihood of a batch's targets, nats a token; of a part, its share."""
    model = nnx.merge(graph, params.merge(trainable, frozen))
    targets, weights = next_token_targets(batch.tokens, batch.loss_mask)
    total, _ = flamingo_loss(model, model.hidden(batch), targets, weights)
    return total / jnp.maximum(weights.sum() if count is None else count, 1.0)


def num_targets(batches: Mapping[str, Batch]) -> dict[str, jax.Array]:
    """Of every dataset's batch, f32[]."""
    return {n: next_token_targets(b.tokens, b.loss_mask)[1].sum() for n, b in batches.items()}


def encode_media(
    graph: nnx.GraphDef, state: TrainState, frozen: Tree, batches: Mapping[str, Batch]
) -> dict[str, Batch]:
    """The batches with features in place of pixels, all encoded together.

    One loop over the pictures of all datasets, not a copy of the encoder's program for each; and
    outside of the gradient of a dataset, which a frozen encoder has no part in.
    """
    names = _with_pixels(batches)
    if not names:
        return dict(batches)
    model = nnx.merge(graph, params.merge(state.trainable, frozen))
    with jax.named_scope("vision"):
        features = model.vision.encode_all(
            [batches[name].media for name in names],
            [batches[name].media_mask for name in names],
            jnp.dtype(model.dtype),
        )
    encoded = {n: batches[n]._replace(media=x) for n, x in zip(names, features, strict=True)}
    return {**batches, **encoded}


def _with_pixels(batches: Mapping[str, Batch]) -> list[str]:
    """Datasets whose pictures are to be encoded; texts have no place for any."""
    return [name for name, b in batches.items() if b.media.ndim == 6 and b.media.shape[1]]


def make_train_step(
    graph: nnx.GraphDef,
    config: FlamingoConfig,
    optimizer: optax.GradientTransformation,
    weights: Mapping[str, float],
    num_microbatches: int = 1,
    *,
    join_datasets: bool = False,
) -> Callable[[TrainState, Tree, dict[str, Batch]], tuple[TrainState, Metrics]]:
    """A function (state, frozen, batches by dataset) -> (state, metrics), to be jitted once.

    `batches` are of all datasets that `weights` names, or, round-robin, of those visited; their
    sizes divide by `num_microbatches` on every device that holds rows of them. With `join_datasets`
    the model passes over all of them together (`joined`), else over one after the other.
    """
    segments = cross_attention_segments(config)

    def one_by_one(trainable, frozen, batches, of_encoder, counts):
        """(losses by dataset, sum of their weighted gradients, those of media by dataset)."""
        losses, grads, of_media = {}, None, {}
        for name in filter(batches.__contains__, weights):

            def loss(trainable, media, name=name):
                shown = batches[name]._replace(media=media.get(name, batches[name].media))
                return batch_loss(graph, trainable, frozen, shown, counts.get(name))

            media = {n: batches[n].media for n in of_encoder if n == name}
            losses[name], found = jax.value_and_grad(loss, (0, 1))(trainable, media)
            of_one, found = _weighted(found, weights[name])
            grads = of_one if grads is None else jax.tree.map(jnp.add, grads, of_one)
            of_media |= found
        return losses, grads, of_media

    def together(trainable, frozen, batches, of_encoder, counts):
        """The same of one pass."""

        def loss(trainable, media):
            model = nnx.merge(graph, params.merge(trainable, frozen))
            shown = {n: b._replace(media=media.get(n, b.media)) for n, b in batches.items()}
            return joined.losses(model, shown, weights, counts)

        media = {name: batches[name].media for name in of_encoder}
        gradient = jax.value_and_grad(loss, (0, 1), has_aux=True)
        (_, losses), of_all = gradient(trainable, media)
        return losses, *_weighted(of_all, 1.0)

    def visit(state, frozen, batches, counts):
        """Losses by dataset, and the sum of their weighted gradients; `counts` of whole batches."""
        of_encoder = _with_pixels(batches) if "vision" in config.trained else []

        def encode(vision):
            now = state._replace(trainable=state.trainable | {"vision": vision})
            found = encode_media(graph, now, frozen, batches)
            return {name: found[name].media for name in of_encoder}

        if of_encoder:
            media, to_encoder = jax.vjp(encode, state.trainable["vision"])
            batches = batches | {n: batches[n]._replace(media=x) for n, x in media.items()}
        else:
            batches = encode_media(graph, state, frozen, batches)
        gradients = together if join_datasets else one_by_one
        losses, grads, of_media = gradients(state.trainable, frozen, batches, of_encoder, counts)
        if of_encoder:
            (vision,) = to_encoder(jax.tree.map(lambda g, x: g.astype(x.dtype), of_media, media))
            grads = grads | {"vision": vision}
        return losses, grads

    def train_step(state: TrainState, frozen: Tree, batches: dict[str, Batch]):
        counts = num_targets(batches) if num_microbatches > 1 or join_datasets else {}
        losses, grads = microbatches.total(
            lambda part: visit(state, frozen, part, counts), batches, num_microbatches
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        metrics = {f"loss/{name}": value for name, value in losses.items()}
        metrics["loss"] = sum(weights[name] * value for name, value in losses.items())
        metrics["grad_norm"] = optax.global_norm(grads)
        metrics |= gates(trainable, segments, config.cross_attention)
        return TrainState(state.step + 1, trainable, opt_state, state.key), metrics

    return train_step


def _weighted(grads: Tree, weight: float) -> Tree:
    return jax.tree.map(lambda g: weight * g.astype(jnp.float32), grads)


def gates(trainable: Tree, segments: tuple[Segment, ...], config: CrossAttentionConfig) -> Metrics:
    """What multiplies each gated branch, as `gate/<language-model block>.<attention or ffw>`.

    The mean over channels where each has its own.
    """
    values = {}
    for segment in segments:
        layers = reroll(trainable["gated_xattn"][segment.name])["layers"]
        for branch in ("attention", "ffw"):
            if (alphas := layers.get(f"{branch}_gate")) is None:
                continue
            for i, alpha in enumerate(alphas):
                block = segment.start + i * segment.depth
                value = config.branch_scale * jnp.tanh(alpha)
                values[f"gate/{block}.{branch}"] = value.mean() if value.ndim else value
    return values
