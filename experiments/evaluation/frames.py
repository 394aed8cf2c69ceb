"""Frames of a benchmark's pictures and videos: which can be read, and as what pixels."""

import collections
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.cli import UserError
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.decode.prompt_batch import VideoSampling
from flamingo_jax.eval.task import Example
from flamingo_jax.images import BadMedia, decode_image
from flamingo_jax.prompts import ImagePart, Part, VideoPart
from flamingo_jax.videos import decode_video

THREADS = min(16, os.cpu_count() or 1)
_VIDEOS = 2  # decoded together


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


def usable(
    task: str,
    what: str,  # "queries", say
    examples: Sequence[Example],
    reason: Callable[[Example], str | None],  # why its medium cannot be read
    max_skipped_share: float,
) -> tuple[list[Example], dict[str, int]]:
    """Those whose medium can be read, and how many not, by reason; UserError for too many."""
    reasons = collections.Counter(r for e in examples if (r := reason(e)) is not None)
    good = [e for e in examples if reason(e) is None]
    if reasons.total() > max_skipped_share * len(examples) or (examples and not good):
        bad = next(e for e in examples if reason(e) is not None)
        raise UserError(
            f"{task}: {reasons.total()} of {len(examples)} {what} cannot be read "
            f"({', '.join(f'{n} {r}' for r, n in sorted(reasons.items()))}), as {bad.path}: mend "
            f"them, or allow a larger share than --max_skipped_share={max_skipped_share:g}"
        )
    return good, dict(sorted(reasons.items()))


def path(part: Part) -> Any:
    """Where it lies; one medium is the same for all prompts."""
    return part.video if isinstance(part, VideoPart) else part.image


def chunks(
    paths: Sequence[Any], media: Mapping[Any, Part], num_pictures: int = 16
) -> Iterator[Sequence[Any]]:
    """Those that are decoded together; of videos few, for each has many frames."""
    for kind, at_once in ((ImagePart, num_pictures), (VideoPart, _VIDEOS)):
        own = [path for path in paths if isinstance(media[path], kind)]
        yield from (own[start : start + at_once] for start in range(0, len(own), at_once))
