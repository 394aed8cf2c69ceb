"""Mirroring and colours of pictures whose right answer is known."""

import colorsys
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines.records import features
from data_pipelines.streams.augmentation import Augmentation, draw
from data_pipelines.streams.examples import Pixels, parse_record
from flamingo_jax.config import ImagePreprocessing
from tests.data_pipelines.tiny_records import record
from tests.data_pipelines.tiny_video import video

NOTHING = Augmentation(False, 1.0, 1.0, 1.0)


def change(pixels, **fields) -> np.ndarray:
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    return np.asarray(dataclasses.replace(NOTHING, **fields)(image)).astype(int)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 180, (8, 8, 3), np.uint8)


def test_mirrored_left_to_right_and_nothing_else():
    np.testing.assert_array_equal(change(noise(), mirrored=True), noise()[:, ::-1])
    np.testing.assert_array_equal(change(noise()), noise())


def test_brightness_multiplies():
    assert abs(change(noise(), brightness=1.25) - 1.25 * noise()).max() <= 1


def test_contrast_turns_about_the_mean_grey():
    black_and_white = np.zeros((8, 8, 3))
    black_and_white[4:] = 200
    changed = change(black_and_white, contrast=0.5)
    assert (changed[:4] == 50).all()
    assert (changed[4:] == 150).all()
    flat = np.full((8, 8, 3), 90)
    np.testing.assert_array_equal(change(flat, contrast=1.4), flat)


def test_saturation_zero_is_grey_and_hue_stays():
    grey = change(noise(), saturation=0.0)
    assert (grey == grey[..., :1]).all()
    luma = noise() @ [0.299, 0.587, 0.114]
    assert abs(grey[..., 0] - luma).max() <= 1
    colour = np.full((8, 8, 3), (120, 90, 60), np.uint8)
    changed = change(colour, saturation=1.3)[0, 0] / 255
    before = colour[0, 0] / 255
    assert colorsys.rgb_to_hsv(*changed)[0] == pytest.approx(
        colorsys.rgb_to_hsv(*before)[0], abs=0.02
    )


def test_draws_follow_their_strengths():
    rng = np.random.default_rng(0)
    assert draw(rng, flip=0.0, color=0.0) is None
    drawn = [draw(rng, flip=0.5, color=0.4) for _ in range(500)]
    assert 0.42 < np.mean([a.mirrored for a in drawn]) < 0.58
    for field in ("brightness", "contrast", "saturation"):
        values = [getattr(a, field) for a in drawn]
        assert 0.6 <= min(values) < 0.65
        assert 1.35 < max(values) <= 1.4
    assert all(not draw(rng, flip=0.0, color=0.2).mirrored for _ in range(20))


def test_padding_keeps_its_colour_and_frames_of_a_video_change_alike():
    pp = ImagePreprocessing(size_px=16, pad=(9, 8, 7))
    wide = Image.new("RGB", (16, 8), (100, 100, 100))
    encoded = parse_record(
        features().serialize_example(
            features().encode_example(
                {**record("a", "x", media=[_png(wide), video(12)]), "media_positions": [0, 0]}
            )
        )
    )
    pixels = Pixels(pp, num_frames=3, flip=1.0, color=0.5)
    rng = np.random.default_rng(3)
    picture = pixels(encoded, 0, rng)
    assert picture.shape == (1, 16, 16, 3)
    assert (picture[0, [0, 3, 12, 15]] == pp.pad).all()
    assert abs(picture[0, 4:12].astype(int) - 100).min() > 0
    plain = Pixels(pp, num_frames=3)(encoded, 1, np.random.default_rng(5)).astype(float)
    changed = Pixels(pp, num_frames=3, color=0.3)(encoded, 1, np.random.default_rng(7))
    ratios = (changed / plain).mean((1, 2, 3))  # frames are grey, so only brightness shows
    assert np.ptp(ratios) < 0.02
    assert abs(ratios[0] - 1) > 0.05


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
