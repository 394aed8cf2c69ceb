"""Features of pictures and videos, each made once and kept while there is room."""

import numpy as np
import pytest
from PIL import Image

from experiments.evaluation import frames as frames_lib
from experiments.evaluation import media as media_lib
from experiments.evaluation.media import Media
from flamingo_jax.eval.task import Example
from flamingo_jax.images import BadMedia
from flamingo_jax.prompts import EndOfChunk, ImagePart, TextPart, VideoPart
from flamingo_jax.videos import decode_video
from tests.data_pipelines import tiny_video
from tests.experiments.evaluation import drawn_benchmark


def test_a_video_is_compared_by_the_mean_over_its_frames(model, tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(tiny_video.video(12))
    frames = decode_video(clip, model.config.vision.preprocessing, num_frames=30, fps=3.0)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    pictures = [ImagePart(tmp_path / f"{number}.png") for number in range(len(frames))]
    media = Media(model)
    media.look([VideoPart(clip), *pictures], pooled=True, tick=lambda number: None)
    examples = [Example("", part, "", ()) for part in (VideoPart(clip), *pictures)]
    video, *each = media.pooled(examples)
    np.testing.assert_allclose(video, np.mean(each, axis=0), atol=1e-5)


def test_a_videos_features_stand_for_it_in_prompts(micro_model, tmp_path):
    """A short one has fewer frames than places, as from its file; a picture beside it is one."""
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(tiny_video.video(8, fps=4))  # 2 s: 6 of 30 frames
    drawn_benchmark.write(tmp_path, "label")
    prompt = [
        *(ImagePart(tmp_path / "00.png"), TextPart("Output: a"), EndOfChunk()),
        *(VideoPart(clip), TextPart("Output:")),
    ]
    (shown,) = Media(micro_model).shown([prompt])
    assert shown[3].video.shape[0] == 6
    assert shown[1:3] + shown[4:] == (*prompt[1:3], *prompt[4:])
    texts = [[" circle", " square"]]
    (want,), (got,) = (micro_model.likelihoods([parts], texts) for parts in (prompt, shown))
    np.testing.assert_allclose(got, want, atol=1e-4)
    blank = VideoPart(np.zeros_like(shown[3].video))
    (other,) = micro_model.likelihoods([[*shown[:3], blank, shown[4]]], texts)
    assert abs(other - got).max() > 1e-3


def test_a_video_is_decoded_and_encoded_once_for_all_orders(model, tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        frames_lib,
        "decode_video",
        lambda path, *a, **k: decoded.append(path) or decode_video(path, *a, **k),
    )
    clips = [tmp_path / f"{number}.mp4" for number in range(3)]
    for number, clip in enumerate(clips):
        clip.write_bytes(tiny_video.video(3 + number))
    media = Media(model)
    orders = [[VideoPart(clips[i]) for i in order] for order in ((0, 1, 2), (1, 0, 2), (1, 2, 0))]
    shown = media.shown(orders)
    assert sorted(decoded) == clips
    assert shown[0][0].video is shown[1][1].video is shown[2][2].video
    media.shown(orders)
    assert len(decoded) == 3  # kept
    assert media.num_bytes(orders[0]) == 3 * 30 * 16 * 32 * 4  # frames, features, channels, float32


def test_pictures_beside_a_video_are_encoded_together(model, tmp_path, monkeypatch):
    drawn_benchmark.write(tmp_path, "label")
    (tmp_path / "clip.mp4").write_bytes(tiny_video.video(3))
    pictures = [ImagePart(tmp_path / f"{number}0.png") for number in range(6)]
    media, sizes = Media(model), []
    encoded = media._encoded
    monkeypatch.setattr(media, "_encoded", lambda f: sizes.append(len(f)) or encoded(f))
    media.shown([[*pictures[:3], VideoPart(tmp_path / "clip.mp4"), *pictures[3:]]])
    assert sizes == [6, 1]


def test_a_file_that_is_gone_is_named(model, tmp_path):
    with pytest.raises(BadMedia, match=r"gone\.mp4: "):
        Media(model).shown([[VideoPart(tmp_path / "gone.mp4")]])


def test_features_that_were_dropped_are_made_again(model, tmp_path, monkeypatch):
    drawn_benchmark.write(tmp_path, "label")
    prompts = [[ImagePart(tmp_path / f"{number}0.png")] for number in range(6)]
    kept = Media(model).shown(prompts)
    monkeypatch.setattr(media_lib, "MAX_BYTES", 2 * kept[0][0].image.nbytes)
    media = Media(model)
    for _ in range(2):
        for (part,), (want,) in zip(media.shown(prompts), kept, strict=True):
            np.testing.assert_array_equal(part.image, want.image)
    assert len(media._features) == 2
