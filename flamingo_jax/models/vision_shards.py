"""The frozen encoder's pictures, shared out among all devices and encoded a few at a time.

Paper, section 2.4: the encoder is not sharded. Its weights are whole on every device, and what is
cut is the pictures: devices that share the rows of a batch, because they cut the language model
between them, take different ones of its pictures. Each runs over its share in chunks, so that the
encoder's largest activations, hundreds of times its output, do not grow with the batch. Slots that
hold no picture come last, and a chunk of them alone is not encoded.

Where the encoder is trained (Table 10, row v), a chunk is encoded once more on the way back: so the
activations of one chunk are there at a time, then too. The gradients of all devices are added.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from flamingo_jax.core import partition

Array = jax.Array


def encode(
    encoder: Callable[..., Array],  # (params, [N, H, W, 3]) -> [N, P, E]
    params: object,
    media: Sequence[Array],  # each [B, M, F, H, W, 3] with its own B, M, F; one H and W
    masks: Sequence[Array],  # each bool[B, M, F], True where there is a picture
    images_at_once: int,
    *,
    trained: bool = False,  # whether there is a way back
) -> list[Array]:  # each [B, M, F, P, E], finite and of no meaning where there is no picture
    """Features of all media, from one loop over all their pictures."""
    mesh = jax.sharding.get_abstract_mesh()
    by_image = not mesh.empty and not mesh.manual_axes and "tensor" in mesh.axis_names
    shards = partition.batch_shards()
    cut = by_image and all(len(x) % shards == 0 for x in media)
    axis = "tensor" if cut and mesh.shape["tensor"] > 1 else None

    def on_one_device(params, media, masks):
        leads = [x.shape[:3] for x in media]
        real = jnp.concatenate([mask.ravel() for mask in masks])
        order = jnp.argsort(~real, stable=True)
        pictures = jnp.concatenate([x.reshape(-1, *x.shape[3:]) for x in media])[order]
        features = _shared_out(
            lambda x: encoder(params, x), pictures, real[order], images_at_once, axis, trained
        )[jnp.argsort(order)]
        ends = list(itertools.accumulate(math.prod(lead) for lead in leads))
        parts = jnp.split(features, ends[:-1])
        return [x.reshape(*lead, *x.shape[1:]) for lead, x in zip(leads, parts, strict=True)]

    media, masks = list(media), list(masks)
    if not cut:
        return on_one_device(params, media, masks)
    rows = partition.spec(("batch",))
    whole = jax.tree.map(lambda _: partition.spec(()), params)
    cut_rows = [rows] * len(media)
    sharded = jax.shard_map(
        on_one_device, in_specs=(whole, cut_rows, cut_rows), out_specs=cut_rows, check_vma=False
    )
    return sharded(params, media, masks)


def _shared_out(
    encoder: Callable[[Array], Array],
    pictures: Array,  # [N, H, W, 3]
    real: Array,  # bool[N]
    images_at_once: int,
    axis: str | None,
    trained: bool,
) -> Array:  # [N, P, E]
    """Features of pictures that all devices along `axis` hold alike, dealt out like cards."""
    if axis is None:
        return _in_chunks(encoder, pictures, real, images_at_once, trained)
    n, devices = len(pictures), jax.lax.axis_size(axis)
    share = -(-n // devices)

    def mine(x: Array) -> Array:
        dealt = _pad(x, share * devices).reshape(share, devices, *x.shape[1:])
        return jax.lax.dynamic_index_in_dim(dealt, jax.lax.axis_index(axis), 1, keepdims=False)

    features = _in_chunks(encoder, mine(pictures), mine(real), images_at_once, trained)
    features = jax.lax.all_gather(features, axis, axis=1)
    return features.reshape(share * devices, *features.shape[2:])[:n]


def _in_chunks(
    encoder: Callable[[Array], Array],
    pictures: Array,
    real: Array,
    images_at_once: int,
    trained: bool,
) -> Array:
    """One chunk after the other; as few of them as the limit allows, and of one size."""
    n = len(pictures)
    count = -(-n // images_at_once)
    size = -(-n // count)
    shape = jax.eval_shape(encoder, pictures[:size])

    def one(chunk: tuple[Array, Array]) -> Array:
        pictures, real = chunk
        nothing = functools.partial(jnp.zeros, shape.shape, shape.dtype)
        return jax.lax.cond(real.any(), lambda: encoder(pictures), nothing)

    chunks = (_pad(x, count * size).reshape(count, size, *x.shape[1:]) for x in (pictures, real))
    features = jax.lax.map(jax.checkpoint(one) if trained else one, tuple(chunks))
    return features.reshape(count * size, *features.shape[2:])[:n]


def _pad(x: Array, length: int) -> Array:
    return jnp.pad(x, [(0, length - len(x))] + [(0, 0)] * (x.ndim - 1))
