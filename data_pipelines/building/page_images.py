"""What a page's picture has to be to stay, and the hash by which similar ones are found.

Paper: appendix on data (M3W): pictures go whose width or height is under 64 pixels, whose aspect
ratio is above 3, or which are clearly of low quality, of one colour for example. Every picture is
decoded whole, at a reduced size where its format allows, so a cut file does not get into a dataset.
"""

import dataclasses
import io

import numpy as np
from PIL import Image

from data_pipelines.building import evaluation_images
from data_pipelines.building.near_duplicates import perceptual_hash, small
from flamingo_jax.images import BadMedia

MAX_IMAGE_BYTES = 32 << 20
_TRIMMED = 1.0  # percent of the values that may lie outside of one colour, on each side


@dataclasses.dataclass(frozen=True)
class ImageFilters:
    """Limits of a picture; one at the limit stays."""

    min_side_px: int = 64
    max_aspect_ratio: float = 3.0
    min_range: int = 8  # of a channel's values, of 255; below in all channels it is one colour
    max_evaluation_distance: int = evaluation_images.MAX_DISTANCE  # or nearer: bits


@dataclasses.dataclass(frozen=True)
class SeenImage:
    """What is known of a picture that was looked at."""

    width: int
    height: int
    perceptual_hash: int  # 64 bits


def look(data: bytes, filters: ImageFilters, evaluation: bytes = b"") -> SeenImage:
    """Decodes a picture and holds it against the limits; `evaluation` as of `evaluation_images`.

    Raises BadMedia, with the reasons of `flamingo_jax.images.decode_image` or `too_small`,
    `too_long`, `one_colour`, `near_evaluation_image`.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise BadMedia("too_large", f"picture of {len(data)} bytes: more than {MAX_IMAGE_BYTES}")
    picture = small(data)
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    if min(width, height) < filters.min_side_px:
        raise BadMedia("too_small", f"{width} x {height}: under {filters.min_side_px} px")
    if max(width, height) > filters.max_aspect_ratio * min(width, height):
        raise BadMedia("too_long", f"{width} x {height}: over {filters.max_aspect_ratio:g} to 1")
    pixels = np.asarray(picture)
    low, high = np.percentile(pixels[::2, ::2], (_TRIMMED, 100 - _TRIMMED), axis=(0, 1))
    if (high - low < filters.min_range).all():
        raise BadMedia("one_colour", f"{width} x {height} of one colour")
    evaluation_images.check(picture, evaluation, filters.max_evaluation_distance)
    return SeenImage(width, height, perceptual_hash(picture))
