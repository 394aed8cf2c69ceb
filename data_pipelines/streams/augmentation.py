"""Random mirroring and colour changes of a training picture.

Paper: appendix on data, "random left/right flips and colour augmentation"; which colours are
changed, and how much, is not said. Here brightness, contrast and saturation are each multiplied by
a factor uniform in 1 - color to 1 + color; hue stays, for captions name colours. All three together
are one affine map of RGB, which takes a quarter of a millisecond at 320 pixels. The frames of a
video change alike.
"""

import dataclasses

import numpy as np
from PIL import Image

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow's grey
_GREY_STEP = 4  # contrast turns about the mean grey of every fourth pixel each way


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to one picture or to each frame of one video; 1 leaves a factor out."""

    mirrored: bool
    brightness: float
    contrast: float
    saturation: float

    def __call__(self, image: Image.Image) -> Image.Image:
        """An RGB picture of the same size."""
        if self.mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if (self.brightness, self.contrast, self.saturation) == (1, 1, 1):
            return image
        grey = (np.asarray(image)[::_GREY_STEP, ::_GREY_STEP] @ _LUMA).mean()
        mix = self.saturation * np.eye(3) + (1 - self.saturation) * _LUMA
        matrix = np.empty((3, 4))
        matrix[:, :3] = self.brightness * self.contrast * mix
        matrix[:, 3] = self.brightness * (1 - self.contrast) * grey
        return image.convert("RGB", tuple(matrix.ravel()))


def draw(rng: np.random.Generator, *, flip: float, color: float) -> Augmentation | None:
    """One at random, mirrored with probability `flip`; None where both strengths are 0."""
    if not flip and not color:
        return None
    mirrored = bool(rng.random() < flip)
    brightness, contrast, saturation = (float(f) for f in rng.uniform(1 - color, 1 + color, 3))
    return Augmentation(mirrored, brightness, contrast, saturation)
