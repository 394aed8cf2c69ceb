"""Frames of a benchmark's pictures and videos: which can be read, and as what pixels."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.cli import UserError
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.decode.prompt_batch import VideoSampling
from flamingo_jax.images import BadMedia, decode_image
from flamingo_jax.prompts import ImagePart, Part, VideoPart
from flamingo_jax.videos import decode_video

_PICTURES, _VIDEOS = 16, 2  # decoded together
THREADS = min(_PICTURES, os.cpu_count() or 1)  # that decode


def read(part: Part, preprocessing: ImagePreprocessing, sampling: VideoSampling) -> np.ndarray:
    """u8[F, H, W, 3], of a picture one frame; BadMedia, which names the file."""
    try:
        if isinstance(part, VideoPart):
            return decode_video(part.video, preprocessing, **sampling._asdict())
        return decode_image(path(part), preprocessing)[None]
    except BadMedia as error:
        raise BadMedia(error.reason, f"{path(part)}: {error}") from error


def look(
    part: Part, preprocessing: ImagePreprocessing, sampling: VideoSampling
) -> tuple[np.ndarray | None, str | None]:
    """The frames, or why there are none; UserError for a video where PyAV is not installed."""
    try:
        return read(part, preprocessing, sampling), None
    except BadMedia as error:
        return None, error.reason
    except ModuleNotFoundError as error:
        raise UserError(f"{path(part)}: {error}: pip install 'flamingo_jax[data]'") from error


def path(part: Part) -> Any:
    """Where it lies; one medium is the same for all prompts."""
    return part.video if isinstance(part, VideoPart) else part.image


def chunks(paths: Sequence[Any], media: Mapping[Any, Part]) -> Iterator[Sequence[Any]]:
    """Those that are decoded together; of videos few, for each has many frames."""
    for kind, at_once in ((ImagePart, _PICTURES), (VideoPart, _VIDEOS)):
        own = [path for path in paths if isinstance(media[path], kind)]
        yield from (own[start : start + at_once] for start in range(0, len(own), at_once))
