"""A real video through prompts and the whole model: frames, masks, temporal embeddings."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
from flax import nnx, traverse_util

from flamingo_jax.batch import check
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.decode.prompt_batch import VideoSampling, encode, to_batch
from flamingo_jax.images import BadMedia
from flamingo_jax.model import Decoding, Model
from flamingo_jax.prompts import ImagePart, PromptError, TextPart, VideoPart
from flamingo_jax.tokenizer import Tokenizer
from tests.data_pipelines.tiny_video import grey, video

TOKENIZER = Tokenizer.byte_level()
PREPROCESSING = ImagePreprocessing(size_px=16)
SHAPE = (16, 16, 3)
BOS, IMAGE = TOKENIZER.bos_id, TOKENIZER.image_id


def shown(frames: np.ndarray) -> list[int]:
    """The frame of a tiny video that each picture shows."""
    greys = np.array([grey(i) for i in range(24)])
    means = frames[:, 4:12, 4:12].mean((1, 2, 3))
    return abs(means[:, None] - greys).argmin(1).tolist()


def test_thirty_frames_at_three_a_second():
    """36 s at 1 FPS: the middle 10 s, each frame of the video shown three times."""
    found = encode([VideoPart(video(36, fps=1))], TOKENIZER, PREPROCESSING)
    assert found.media[0].shape == (30, *SHAPE)
    assert found.media_shape == (1, 30)
    greys = found.media[0][:, 4:12, 4:12].mean((1, 2, 3))
    assert abs(greys - np.repeat([grey(i) for i in range(13, 23)], 3)).max() < 4


def test_a_short_video_has_its_missing_frames_masked(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(video(8, fps=4))  # 2 s: 6 of 30 frames
    parts = [VideoPart(path), TextPart("a"), ImagePart(np.full((4, 4, 3), 9, np.uint8))]
    found = encode(parts, TOKENIZER, PREPROCESSING)
    assert found.tokens == [BOS, IMAGE, ord("a"), IMAGE]
    assert shown(found.media[0]) == [0, 1, 2, 4, 5, 6]
    batch = check(to_batch([found], TOKENIZER, SHAPE, side="left"))
    assert batch.media.shape == (1, 2, 30, *SHAPE)
    assert batch.media_mask.sum(-1).tolist() == [[6, 1]]
    assert batch.media_mask[0, 0, :6].all()


def test_an_array_of_frames_is_taken_whole():
    frames = np.stack([np.full((4, 4, 3), i, np.uint8) for i in range(5)])
    found = encode([VideoPart(frames)], TOKENIZER, PREPROCESSING)
    assert found.num_frames == 5
    assert found.media[0][:, 8, 8, 0].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(PromptError, match=r"array uint8\[4, 4, 3\], want uint8 \[F, H, W, 3\]"):
        encode([VideoPart(frames[0])], TOKENIZER, PREPROCESSING)


def test_features_of_frames_have_the_places_of_a_file():
    features = np.ones((6, 5, 3), np.float32)
    found = encode([VideoPart(features)], TOKENIZER, PREPROCESSING)
    assert found.media_shape == (1, 30)
    batch = to_batch([found], TOKENIZER, SHAPE, side="left")
    assert (batch.media.shape, batch.media.dtype) == ((1, 1, 30, 5, 3), np.float32)
    assert batch.media_mask.sum() == 6
    with pytest.raises(PromptError, match=r"array float32\[0, 5, 3\], want uint8 \[F, H, W, 3\]"):
        encode([VideoPart(features[:0])], TOKENIZER, PREPROCESSING)


def test_features_of_another_encoder_are_refused(micro_model):
    features = np.ones((6, 5, 3), np.float32)
    with pytest.raises(PromptError, match=r"image or frame: array float32\[5, 3\], want a picture"):
        micro_model.generate([[{"video": features}, {"text": "Output:"}]])


def test_a_file_that_is_no_video_is_named(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"not a video")
    with pytest.raises(BadMedia, match=r"clip\.mp4: "):
        encode([VideoPart(path)], TOKENIZER, PREPROCESSING)


def test_without_pyav_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(PromptError, match="PyAV is not installed: pip install"):
        encode([VideoPart(video(2))], TOKENIZER, PREPROCESSING)


@pytest.fixture(scope="module")
def clip():
    return video(24, fps=4)  # 6 s


@pytest.fixture(scope="module")
def sees(micro_model, clip):
    """The micro model, its 2 temporal embeddings interpolated to 6 frames.

    Its encoder's random biases drown what tells one grey from another, so they are 0 here, and the
    last kernel makes features of deviation 1.
    """
    model = with_sampling(micro_model, VideoSampling(6, 1.0))
    flat = traverse_util.flatten_dict(model.params)
    inside = {path: x for path, x in flat.items() if path[:2] == ("vision", "encoder")}
    flat |= {path: 0 * x for path, x in inside.items() if path[-1] == "bias"}
    encode_frames = jax.jit(lambda p, x: nnx.merge(model.graph, p).vision(x))
    frames = decoded(model, clip)[None, None]
    features = encode_frames(traverse_util.unflatten_dict(flat), frames)
    last = ("vision", "encoder", "head", "kernel")
    flat[last] = flat[last] / np.std(features)
    model.params = traverse_util.unflatten_dict(flat)
    return model


def with_sampling(model, sampling, **resampler):
    parts = dataclasses.replace(model.config.resampler, **resampler)
    config = dataclasses.replace(model.config, resampler=parts)
    return Model(config, model.params, model.tokenizer, video_sampling=sampling)


def log_prob(model, *parts) -> float:
    """Of " cat" after the parts."""
    return float(model.likelihoods([[*parts, {"text": "Output:"}]], [[" cat"]])[0][0])


def decoded(model, clip) -> np.ndarray:
    """The frames as the model takes them."""
    preprocessing = model.config.vision.preprocessing
    return encode([VideoPart(clip)], TOKENIZER, preprocessing, model.video_sampling).media[0]


def test_the_order_of_frames_matters_and_a_still_differs(sees, clip):
    frames = decoded(sees, clip)
    assert shown(frames) == [0, 4, 8, 12, 16, 20]
    forward = log_prob(sees, {"video": frames})
    assert forward == log_prob(sees, {"video": clip})
    assert abs(forward - log_prob(sees, {"video": frames[::-1]})) > 1e-3
    assert abs(forward - log_prob(sees, {"image": frames[0]})) > 1e-3


def test_one_frame_is_a_picture(sees, clip):
    """A video of one frame has the picture's embedding, alone and where others have six."""
    first = decoded(sees, clip)[:1]
    want = log_prob(sees, {"image": first[0]})
    assert log_prob(sees, {"video": first}) == pytest.approx(want, abs=1e-4)
    picture = {"video": np.repeat(first, 6, axis=0)}, {"image": first[0]}
    one_frame = {"video": np.repeat(first, 6, axis=0)}, {"video": first}
    assert log_prob(sees, *picture) == log_prob(sees, *one_frame)


def test_a_video_is_continued_as_its_array_of_frames(sees, clip):
    prompts = [[{"video": video}, {"text": "Output:"}] for video in (clip, decoded(sees, clip))]
    from_file, from_array = sees.generate(prompts, Decoding(max_tokens=2))
    assert from_file == from_array
    assert 1 <= len(from_file.tokens) <= 2


def test_more_frames_than_embeddings_without_interpolation(micro_model, clip):
    model = with_sampling(micro_model, VideoSampling(6, 1.0), interpolate_frames=False)
    message = "^video frames=6: resampler.num_frames=2 and .*=False: use 1 to 2"
    with pytest.raises(PromptError, match=message):
        model.generate([[{"video": clip}, {"text": "Output:"}]])
