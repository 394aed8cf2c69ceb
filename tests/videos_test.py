"""Which frames of a video are taken, told from frames that each have their own grey."""

import contextlib
import io
import resource
import struct

import av
import numpy as np
import pytest

from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.images import BadMedia
from flamingo_jax.videos import decode_video, is_video
from tests.data_pipelines.tiny_records import picture
from tests.data_pipelines.tiny_video import encoded, grey, video

PP = ImagePreprocessing(size_px=16, pad=(1, 2, 3))


def numbers(frames: np.ndarray, within: range) -> list[int]:
    """The frame in `within` that each picture shows."""
    greys = np.array([grey(i) for i in within])
    seen = frames[:, 4:12, 4:12].mean((1, 2, 3))
    assert abs(seen[:, None] - greys).min(1).max() < 4
    return [within[i] for i in abs(seen[:, None] - greys).argmin(1)]


def test_the_middle_of_a_long_video_at_one_frame_a_second():
    """24 frames at 4 FPS are 6 s; 4 of them from second 1 on are frames 4, 8, 12 and 16."""
    frames = decode_video(video(24), PP, num_frames=4)
    assert frames.shape == (4, 16, 16, 3)
    assert frames.dtype == np.uint8
    assert numbers(frames, range(24)) == [4, 8, 12, 16]


def test_a_short_video_gives_fewer_frames():
    assert numbers(decode_video(video(10), PP, num_frames=8), range(10)) == [0, 4, 8]
    assert numbers(decode_video(video(1), PP, num_frames=8), range(1)) == [0]


def test_other_rates():
    assert numbers(decode_video(video(8), PP, num_frames=4, fps=2.0), range(8)) == [0, 2, 4, 6]
    # more frames than the video has: each is shown until the next begins
    assert numbers(decode_video(video(2), PP, num_frames=4, fps=8.0), range(2)) == [0, 0, 1]


def test_random_clips_begin_anywhere_and_keep_their_spacing():
    data, starts = video(24), set()
    for seed in range(20):
        shown = numbers(
            decode_video(data, PP, num_frames=4, rng=np.random.default_rng(seed)), range(24)
        )
        assert np.diff(shown).tolist() == [4, 4, 4]
        starts.add(shown[0])
    assert min(starts) >= 0
    assert max(starts) <= 8
    assert len(starts) >= 6


def test_a_wide_video_is_padded_as_a_picture_is():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((32, 64, 3), 200, np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode()])
    (square,) = decode_video(file.getvalue(), PP)
    assert (square[[0, 3, 12, 15]] == PP.pad).all()
    assert abs(square[4:12].astype(int) - 200).max() < 6


def rotated(data: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """The MP4 with this matrix in its track's header: x' = a x + c y, y' = b x + d y."""
    at = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[at : at + 36])[:5] == (1 << 16, 0, 0, 0, 1 << 16)
    a, b, c, d = (value << 16 for value in matrix)
    return data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :]


@pytest.mark.parametrize(
    ("matrix", "white"),
    [
        ((1, 0, 0, 1), np.s_[:, :6]),
        ((0, 1, -1, 0), np.s_[:6, :]),  # clockwise, as phones held upright write: left goes up
        ((-1, 0, 0, -1), np.s_[:, -6:]),
        ((0, -1, 1, 0), np.s_[-6:, :]),
    ],
)
def test_a_video_is_turned_upright(matrix, white):
    """Its left half is white."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32] = 255
    (frame,) = decode_video(rotated(video(1, pixels=pixels), matrix), PP, num_frames=1)
    assert frame[white].mean() > 240
    assert abs(frame.mean() - 128) < 8


def test_containers_that_are_taken_for_videos_and_no_others(tmp_path):
    for container in ("mp4", "mov", "matroska", "avi", "mpeg", "mpeg1video", "flv", "asf"):
        assert decode_video(encoded(container), PP, num_frames=1).shape == (1, 16, 16, 3)
    session = (
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 32\n"
    )
    for data in (encoded("mpegts"), session):
        (tmp_path / "a.mp4").write_bytes(data)
        for given in (data, tmp_path / "a.mp4"):
            with pytest.raises(BadMedia) as caught:
                decode_video(given, PP, num_frames=1)
            assert caught.value.reason == "not_a_video"


def test_what_is_a_video():
    assert is_video(video(1))
    assert is_video(b"\x1aE\xdf\xa3" + b"webm")
    assert is_video(b"RIFF\0\0\0\0AVI LIST")
    assert not is_video(picture(1))
    assert not is_video(b"RIFF\0\0\0\0WEBPVP8 ")
    assert not is_video(b"\0\0\0\x1cftypavif")
    assert not is_video(b"")


def test_bad_videos_are_named_by_reason(tmp_path):
    def reason(data) -> str:
        with pytest.raises(BadMedia) as caught:
            decode_video(data, PP)
        return caught.value.reason

    assert reason(b"") == "empty"
    assert reason(tmp_path / "none.mp4") == "not_found"
    assert reason([np.zeros((4, 4, 3), np.uint8)]) == "not_a_video"
    assert reason(b"\0\0\0\x18ftypisom" + b"x" * 500) == "not_a_video"
    assert reason(video(12)[:200]) == "not_a_video"


def test_cut_and_changed_videos_end_quickly_with_frames_or_a_reason():
    """Damage of 200 kinds: any frames that come are whole squares, and nothing else is raised."""
    data, rng, good = video(24), np.random.default_rng(0), 0
    for _ in range(200):
        broken = bytearray(data)
        for place in rng.integers(0, len(broken), rng.integers(1, 20)):
            broken[place] = rng.integers(0, 256)
        broken = bytes(broken[: rng.integers(1, len(broken) + 1)])
        try:
            frames = decode_video(broken, PP, num_frames=4, rng=rng)
        except BadMedia:
            continue
        good += 1
        assert frames.shape[1:] == (16, 16, 3)
        assert 1 <= len(frames) <= 4
    assert 0 < good < 200


def test_a_header_that_lies_about_the_size_costs_no_memory():
    """Width and height of the track's sample description are set to 30,000."""
    data = bytearray(video(4))
    place = data.index(b"mp4v") + 4 + 24
    assert struct.unpack(">HH", data[place : place + 4]) == (64, 64)
    data[place : place + 4] = struct.pack(">HH", 30_000, 30_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(BadMedia):  # or the decoder believes the stream, not the container
        assert decode_video(bytes(data), PP, num_frames=1).shape == (1, 16, 16, 3)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1 << 20  # KiB; a frame of that size would take 2.5 GiB
