"""The contract between data and model: what one batch of interleaved sequences holds.

A batch is a tuple of arrays, numpy on the host and `jax.Array` on the devices; every dataset of the
mixture, and every prompt at evaluation, arrives in this one form. Paper: section 2.4 and v1
appendix on data ("images [N, T, 320, 320, 3], text [L], indices [L]").

Dims: `B` batch, `T` text tokens, `M` media a sequence, `F` frames, `P` features a frame, `E` vision
width. An image is a video of one frame.
"""

from typing import Any, NamedTuple

import numpy as np

Array = Any  # np.ndarray on the host, jax.Array on the devices


class Batch(NamedTuple):
    """Interleaved sequences. Media are pixels, or features where a frozen encoder ran before."""

    tokens: Array  # i32[B, T]
    token_mask: Array  # bool[B, T], False on padding
    loss_mask: Array  # bool[B, T], True where the prediction *of* this token is scored
    media_index: Array  # i32[B, T], phi: the media this token attends to, from 1; 0 is none
    media: Array  # u8[B, M, F, H, W, 3] pixels or float[B, M, F, P, E] features
    media_mask: Array  # bool[B, M, F], False where a media or a frame is only padding
    segments: Array | None = None  # i32[B, T], of packed pairs: the pair, from 1

    @property
    def num_targets(self) -> Array:
        """Tokens that count in the loss."""
        return self.loss_mask.sum()


def check(batch: Batch) -> Batch:
    """Returns `batch` if its shapes and dtypes agree, else raises ValueError naming the field."""
    b, t = batch.tokens.shape
    m, f = batch.media_mask.shape[1:]
    want = {
        "tokens": ((b, t), np.int32),
        "token_mask": ((b, t), np.bool_),
        "loss_mask": ((b, t), np.bool_),
        "media_index": ((b, t), np.int32),
        "media_mask": ((b, m, f), np.bool_),
    }
    if batch.segments is not None:
        want["segments"] = ((b, t), np.int32)
    for name, (shape, dtype) in want.items():
        array = getattr(batch, name)
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"batch.{name} is {array.dtype}{list(array.shape)}, want "
                f"{np.dtype(dtype).name}{list(shape)} beside tokens {[b, t]} and media {[b, m, f]}"
            )
    if batch.media.ndim not in (5, 6) or batch.media.shape[:3] != (b, m, f):
        raise ValueError(
            f"batch.media is {list(batch.media.shape)}, want [{b}, {m}, {f}, height, width, 3] "
            f"pixels or [{b}, {m}, {f}, features, width]"
        )
    return batch
