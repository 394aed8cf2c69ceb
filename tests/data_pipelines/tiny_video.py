"""Videos for tests: frame i of a clip is one grey that tells its number."""

import io

import av
import numpy as np


def grey(number: int) -> int:
    """Of frame `number`; steps of 8, so that compression leaves them apart."""
    return 16 + 8 * (number % 28)


def video(num_frames: int, fps: int = 4, size: int = 64, gop: int = 12) -> bytes:
    """MP4 (MPEG-4 part 2, which every build of FFmpeg has), a key frame every `gop` frames."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = gop
        stream.bit_rate = 1_000_000
        for number in range(num_frames):
            pixels = np.full((size, size, 3), grey(number), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()
