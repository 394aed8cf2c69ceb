"""Videos for tests: frame i of a clip is one grey that tells its number."""

import io

import av
import numpy as np


def grey(number: int) -> int:
    """Of frame `number`; steps of 8, so that compression leaves them apart."""
    return 16 + 8 * (number % 28)


def encoded(container: str) -> bytes:
    """Three frames of MPEG-1 in the container that FFmpeg calls so."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream("flv1" if container == "flv" else "mpeg1video", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(3):
            pixels = np.full((64, 64, 3), grey(number), np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())
    return file.getvalue()


def video(num_frames: int, fps: int = 4, size: int = 64, gop: int = 12, pixels=None) -> bytes:
    """MP4 (MPEG-4 part 2, which every build of FFmpeg has), a key frame every `gop` frames.

    `pixels`, u8[size, size, 3], stand in each frame in place of its grey.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = gop
        stream.bit_rate = 1_000_000
        for number in range(num_frames):
            shown = np.full((size, size, 3), grey(number), np.uint8) if pixels is None else pixels
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()
