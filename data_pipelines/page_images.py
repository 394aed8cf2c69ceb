"""What a page's picture has to be to stay, and the hash by which similar ones are found.

Paper: appendix on data (M3W): pictures go whose width or height is under 64 pixels, whose aspect
ratio is above 3, or which are clearly of low quality, of one colour for example. Every picture is
decoded whole, at a reduced size where its format allows, so a cut file does not get into a dataset.
"""

import dataclasses
import io
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from data_pipelines.near_duplicates import distances, perceptual_hash
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.images import BadMedia, decode_image

MAX_IMAGE_BYTES = 32 << 20
_SEEN_PX = 128  # the side of the square on which colour and hash are computed
_TRIMMED = 1.0  # percent of the values that may lie outside of one colour, on each side


@dataclasses.dataclass(frozen=True)
class ImageFilters:
    """Limits of a picture; one at the limit stays."""

    min_side_px: int = 64
    max_aspect_ratio: float = 3.0
    min_range: int = 8  # of a channel's values, of 255; below in all channels it is one colour
    max_evaluation_distance: int = 4  # bits of 64 from an evaluation picture's hash, or nearer


@dataclasses.dataclass(frozen=True)
class SeenImage:
    """What is known of a picture that was looked at."""

    width: int
    height: int
    perceptual_hash: int  # 64 bits


def look(data: bytes, filters: ImageFilters, evaluation: np.ndarray | None = None) -> SeenImage:
    """Decodes a picture and holds it against the limits; `evaluation` is u64[n], hashes to avoid.

    Raises BadMedia, with the reasons of `flamingo_jax.images.decode_image` or `too_small`,
    `too_long`, `one_colour`, `near_evaluation_image`.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise BadMedia("too_large", f"picture of {len(data)} bytes: more than {MAX_IMAGE_BYTES}")
    small = _small(data)
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    if min(width, height) < filters.min_side_px:
        raise BadMedia("too_small", f"{width} x {height}: under {filters.min_side_px} px")
    if max(width, height) > filters.max_aspect_ratio * min(width, height):
        raise BadMedia("too_long", f"{width} x {height}: over {filters.max_aspect_ratio:g} to 1")
    pixels = np.asarray(small)
    low, high = np.percentile(pixels[::2, ::2], (_TRIMMED, 100 - _TRIMMED), axis=(0, 1))
    if (high - low < filters.min_range).all():
        raise BadMedia("one_colour", f"{width} x {height} of one colour")
    seen = SeenImage(width, height, perceptual_hash(small))
    if evaluation is not None and len(evaluation):
        nearest = int(distances(seen.perceptual_hash, evaluation).min())
        if nearest <= filters.max_evaluation_distance:
            raise BadMedia("near_evaluation_image", f"{nearest} of 64 bits from one")
    return seen


def evaluation_hashes(paths: Sequence[str | os.PathLike]) -> np.ndarray:  # u64[n], sorted
    """Perceptual hashes of evaluation pictures; ValueError for one that cannot be read."""
    hashes = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                hashes.append(perceptual_hash(_small(file.read())))
        except (OSError, BadMedia) as error:
            raise ValueError(
                f"evaluation picture {path} cannot be read: {error}: replace it, or leave it out"
            ) from error
    return np.unique(np.array(hashes, np.uint64))


def _small(data: bytes) -> Image.Image:
    """The RGB picture with its longer side at _SEEN_PX, upright, without padding."""
    found = []
    decode_image(
        data,
        ImagePreprocessing(size_px=_SEEN_PX),
        augment=lambda image: found.append(image) or image,
    )
    return found[0]
