"""Features of pictures and videos, each made once and kept while there is room."""

import numpy as np
from PIL import Image

from experiments.evaluation import media as media_lib
from experiments.evaluation.media import Media
from flamingo_jax.eval.task import Example
from flamingo_jax.prompts import ImagePart, VideoPart
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
