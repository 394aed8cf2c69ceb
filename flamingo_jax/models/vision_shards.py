"""The frozen encoder's pictures, shared out among all devices and encoded a few at a time.

Paper, section 2.4: the encoder is not sharded. Its weights are whole on every device, and what is
cut is the pictures: devices that share the rows of a batch, because they cut the language model
between them, take different ones of its pictures. Each runs over its share in chunks, so that the
encoder's largest activations, hundreds of times its output, do not grow with the batch.
"""

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
    images_at_once: int,
) -> list[Array]:  # each [B, M, F, P, E]
    """Features of all media, from one loop over all their pictures."""
    mesh = jax.sharding.get_abstract_mesh()
    by_image = not mesh.empty and not mesh.manual_axes and "tensor" in mesh.axis_names
    shards = partition.batch_shards()
    cut = by_image and all(len(x) % shards == 0 for x in media)
    axis = "tensor" if cut and mesh.shape["tensor"] > 1 else None

    def on_one_device(params, media):
        leads = [x.shape[:3] for x in media]
        pictures = jnp.concatenate([x.reshape(-1, *x.shape[3:]) for x in media])
        features = _shared_out(lambda x: encoder(params, x), pictures, images_at_once, axis)
        ends = list(itertools.accumulate(math.prod(lead) for lead in leads))
        parts = jnp.split(features, ends[:-1])
        return [x.reshape(*lead, *x.shape[1:]) for lead, x in zip(leads, parts, strict=True)]

    media = list(media)
    if not cut:
        return on_one_device(params, media)
    rows = partition.spec(("batch",))
    whole = jax.tree.map(lambda _: partition.spec(()), params)
    cut_rows = [rows] * len(media)
    sharded = jax.shard_map(
        on_one_device, in_specs=(whole, cut_rows), out_specs=cut_rows, check_vma=False
    )
    return sharded(params, media)


def _shared_out(
    encoder: Callable[[Array], Array], pictures: Array, images_at_once: int, axis: str | None
) -> Array:
    """Features [N, P, E] of pictures [N, H, W, 3] that all devices along `axis` hold alike."""
    n = len(pictures)
    if axis is None:
        return _in_chunks(encoder, pictures, images_at_once)
    share = -(-n // jax.lax.axis_size(axis))
    pictures = _pad(pictures, share * jax.lax.axis_size(axis))
    mine = jax.lax.dynamic_slice_in_dim(pictures, jax.lax.axis_index(axis) * share, share)
    features = _in_chunks(encoder, mine, images_at_once)
    return jax.lax.all_gather(features, axis, tiled=True)[:n]


def _in_chunks(encoder: Callable[[Array], Array], pictures: Array, images_at_once: int) -> Array:
    """One chunk after the other; as few of them as the limit allows, and of one size."""
    n = len(pictures)
    count = -(-n // images_at_once)
    if count == 1:
        return encoder(pictures)
    size = -(-n // count)
    chunks = _pad(pictures, count * size).reshape(count, size, *pictures.shape[1:])
    features = jax.lax.map(encoder, chunks)
    return features.reshape(count * size, *features.shape[2:])[:n]


def _pad(x: Array, length: int) -> Array:
    return jnp.pad(x, [(0, length - len(x))] + [(0, 0)] * (x.ndim - 1))
