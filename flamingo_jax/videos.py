"""Compressed videos to a few frames of the squares a vision encoder takes, through PyAV.

Paper: appendix on data, "8 frames at 1 FPS" in training, more at evaluation. Where the paper is
silent: a training clip begins at a random time, any that lets it end inside the video; without a
generator it is the middle of the video. A frame is the one shown at its time. A video shorter than
the clip gives fewer frames, and the batch masks the others. Each frame is turned upright, as the
file says, and goes through `decode_image`, so it means what a picture does. FFmpeg gets the bytes
and the name of their format: it neither guesses nor opens a file or an address itself. PyAV comes
with the `data` extra.
"""

import collections
import io
import os
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.images import BadMedia, decode_image

MAX_FRAME_PIXELS = 1 << 24  # 5K; a decoder keeps up to 16 frames of 25 MB then
_MAX_DECODED = 4_000  # frames: 8 s at 120 FPS after a group of 3,000; more is damage or an attack
_SAME_TIME_S = 1e-6  # times are ratios of whole numbers, here as floats
_QUICKTIME = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_PICTURES = (b"avif", b"heic", b"mif1")  # pictures in the same container
_STARTS = {  # to the name of FFmpeg's reader
    b"\x1aE\xdf\xa3": "matroska",
    b"\x00\x00\x01\xba": "mpeg",
    b"\x00\x00\x01\xb3": "mpegvideo",
    b"FLV\x01": "flv",
    b"\x30\x26\xb2\x75": "asf",  # Windows Media
}
_NAMES = "MP4, QuickTime, Matroska, WebM, AVI, MPEG, FLV and ASF"
_HEAD_BYTES = 12  # that tell the format
_NO_PROTOCOL = {"protocol_whitelist": "none"}


def is_video(data: bytes) -> bool:
    """Whether bytes begin as MP4, QuickTime, Matroska, WebM, AVI, MPEG, FLV or ASF do."""
    return _format(data) is not None


def decode_video(
    data: bytes | str | os.PathLike,
    pp: ImagePreprocessing,
    *,
    num_frames: int = 8,
    fps: float = 1.0,
    rng: np.random.Generator | None = None,
    augment: Callable[[Image.Image], Image.Image] | None = None,
) -> np.ndarray:  # u8[n, size_px, size_px, 3], n from 1 to num_frames
    """The clip's frames, each changed by `augment` as a picture is.

    Raises BadMedia with the reason `not_found`, `empty`, `not_a_video`, `too_large`, `too_long` (no
    frame of the clip after thousands), `damaged`, or one of `decode_image`'s.
    """
    import av  # an optional dependency, wanted by videos only

    if isinstance(data, bytes):
        if not data:
            raise BadMedia("empty", "video of 0 bytes")
        name, file = f"of {len(data)} bytes", io.BytesIO(data)
    else:
        try:
            name = os.fspath(data)
            file = open(name, "rb")  # noqa: SIM115, closed below
        except OSError as error:
            raise BadMedia("not_found", f"cannot read the video {name}: {error}") from error
        except TypeError as error:
            raise BadMedia(
                "not_a_video",
                f"video of type {type(data).__name__}: want a path, the file's bytes or, in a "
                "prompt, a uint8 array",
            ) from error
    try:
        with file:
            head = file.read(_HEAD_BYTES)
            file.seek(0)
            kind = _format(head)
            if kind is None:
                raise BadMedia("not_a_video", f"video {name} is none of {_NAMES}")
            with av.open(file, format=kind, options=_NO_PROTOCOL) as container:
                frames = _clip(container, num_frames, fps, rng)
                return np.stack([decode_image(frame, pp, augment) for frame in frames])
    except BadMedia:
        raise
    except av.error.InvalidDataError as error:
        raise BadMedia("not_a_video", f"video {name} is none or damaged: {error}") from error
    except Exception as error:  # PyAV raises a dozen kinds for damaged data
        raise BadMedia("damaged", f"video damaged: {type(error).__name__}: {error}") from error


def _format(data: bytes) -> str | None:
    """FFmpeg's name of the container that `data` begins as, of those that are taken for videos."""
    if data[4:8] in _QUICKTIME:
        return None if data[8:12] in _PICTURES else "mov"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    return _STARTS.get(data[:4])


def _clip(container, num_frames: int, fps: float, rng) -> Iterator[np.ndarray]:
    """Decoded frames, u8[H, W, 3], as large as the video."""
    if not container.streams.video:
        raise BadMedia("not_a_video", "a media file without a video stream")
    stream = container.streams.video[0]
    stream.thread_type = "NONE"  # several videos are decoded side by side already
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_FRAME_PIXELS:
        raise BadMedia("too_large", f"video of {width} x {height} pixels: it is not decoded")
    start = _start_s(container, stream, num_frames, fps, rng)
    if start > 0:
        first = stream.start_time or 0
        container.seek(
            first + int(start / stream.time_base), stream=stream
        )  # to a key frame before
    return _shown_at(container, stream, [start + i / fps for i in range(num_frames)])


def _start_s(container, stream, num_frames: int, fps: float, rng) -> float:
    """Seconds from the beginning at which the clip starts."""
    if stream.duration:
        duration = float(stream.duration * stream.time_base)
    else:
        duration = (container.duration or 0) / 1_000_000  # microseconds
    room = max(0.0, duration - num_frames / fps)
    return room / 2 if rng is None else room * float(rng.random())


def _shown_at(container, stream, times: list[float]) -> Iterator[np.ndarray]:
    """The frame shown at each of the ascending times, until the video ends."""
    offset = float((stream.start_time or 0) * stream.time_base)
    waiting = collections.deque(times)
    shown, begins = None, 0.0
    for number, frame in enumerate(_whole_frames(container, stream)):
        begins = (frame.time or 0.0) - offset
        while waiting and begins > waiting[0] + _SAME_TIME_S:
            waiting.popleft()
            yield _upright(shown or frame)
        if not waiting:
            return
        if number > _MAX_DECODED:
            raise BadMedia("too_long", f"no clip of {len(times)} frames within {number} frames")
        shown = frame
    if shown is None:
        raise BadMedia("damaged", "a video without a frame that can be decoded")
    reached = sum(time <= begins + _SAME_TIME_S for time in waiting)
    for _ in range(max(reached, len(waiting) == len(times))):  # at least one frame in all
        yield _upright(shown)


def _upright(frame) -> np.ndarray:  # u8[H, W, 3]
    """RGB, turned by the quarter turns that the track's display matrix asks for."""
    pixels = frame.to_ndarray(format="rgb24")
    return np.rot90(pixels, round(frame.rotation / 90))  # both count anticlockwise


def _whole_frames(container, stream) -> Iterator:
    """Frames up to the end or to the first damage, if there is one before it."""
    number = 0
    try:
        for frame in container.decode(stream):
            yield frame
            number += 1
    except Exception:
        if not number:
            raise
