"""Similar texts share a key about as often as theory says; similar pictures are few bits apart."""

import argparse
import io
import random

import numpy as np
import pytest
from PIL import Image

from data_pipelines.building import evaluation_images
from data_pipelines.building.near_duplicates import NUM_BANDS, ROWS_PER_BAND, hash64, text_keys
from data_pipelines.building.page_images import ImageFilters, look
from data_pipelines.sources import webdataset
from flamingo_jax.images import BadMedia
from tests.data_pipelines.sources.converting import converted, write_tar


def text(rng: random.Random, count: int = 300) -> list[str]:
    return [f"w{rng.randrange(100_000)}" for _ in range(count)]


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))


def test_a_hash_is_of_a_list_not_of_a_joined_string():
    assert hash64("a", "b") != hash64("ab") != hash64("b", "a")
    assert 0 <= hash64("x") < 2**64


def test_equal_texts_share_all_keys_whatever_their_case_and_spaces():
    words = text(random.Random(0))
    one, two = text_keys(" ".join(words)), text_keys("  ".join(words).upper() + " .")
    np.testing.assert_array_equal(one, two)
    assert one.shape == (1 + NUM_BANDS,)


@pytest.mark.parametrize("similarity", [0.3, 0.75, 0.95])
def test_similar_texts_share_a_band_as_often_as_minhash_promises(similarity):
    """Of two texts of equal length with a common beginning the shingles' Jaccard index is known."""
    found, trials = 0, 80
    for seed in range(trials):
        rng = random.Random(seed)
        count = 300
        common = round(2 * similarity / (1 + similarity) * count)
        beginning = text(rng, common)
        one, two = (" ".join(beginning + text(rng, count - common)) for _ in range(2))
        found += bool(set(text_keys(one)[1:].tolist()) & set(text_keys(two)[1:].tolist()))
    promised = 1 - (1 - similarity**ROWS_PER_BAND) ** NUM_BANDS
    assert found / trials == pytest.approx(promised, abs=0.15)


@pytest.mark.parametrize("short", ["", "one", "one two three four"])
def test_texts_shorter_than_a_shingle_have_keys_of_their_own(short):
    assert len(set(text_keys(short).tolist()) & set(text_keys(short + " five six").tolist())) == 0


def test_evaluation_pictures_are_found_resized_and_recompressed(tmp_path):
    path = tmp_path / "evaluation.png"
    path.write_bytes(encoded(scene(1)))
    hashes = evaluation_images.hashes(str(path))
    filters = ImageFilters()
    for copy in (
        encoded(scene(1), "JPEG", quality=50),
        encoded(scene(1, (640, 480)), "WEBP"),
        encoded(np.clip(scene(1).astype(int) + 12, 0, 255).astype(np.uint8)),
    ):
        with pytest.raises(BadMedia) as caught:
            look(copy, filters, hashes)
        assert caught.value.reason == "near_evaluation_image"
    for seed in range(2, 20):
        assert look(encoded(scene(seed)), filters, hashes).width == 320


def test_pairs_with_a_picture_near_one_of_a_benchmark_are_dropped(tmp_path):
    """As the paper did with ALIGN and LTIP."""
    (tmp_path / "asked.png").write_bytes(encoded(scene(1)))
    near = encoded(scene(1, (640, 480)), "JPEG", quality=50)
    files = {"a.jpg": near, "a.txt": b"asked", "b.png": encoded(scene(2)), "b.txt": b"other"}
    parser = argparse.ArgumentParser()
    webdataset.add_flags(parser)
    source = webdataset.source(parser.parse_args([f"--evaluation_images={tmp_path}/*.png"]))
    documents, counts = converted(source, [write_tar(tmp_path / "0.tar", files)])
    assert [document.text for document in documents] == ["other"]
    assert counts.dropped == {"near_evaluation_image": 1}
    assert counts.examples["near_evaluation_image"].startswith("0/a: ")
    nowhere = parser.parse_args([f"--evaluation_images={tmp_path}/*.gif"])
    with pytest.raises(ValueError, match=r"--evaluation_images=.*gif: no such file"):
        webdataset.source(nowhere)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (scene(0, (63, 100)), "too_small"),
        (scene(0, (100, 63)), "too_small"),
        (scene(0, (301, 100)), "too_long"),
        (scene(0, (100, 301)), "too_long"),
        (np.full((100, 100, 3), 200, np.uint8), "one_colour"),
        (np.full((100, 100, 3), 200, np.uint8) + np.arange(5, dtype=np.uint8).repeat(20)[:, None],
         "one_colour"),
    ],
)  # fmt: skip
def test_pictures_that_go(pixels, reason):
    with pytest.raises(BadMedia) as caught:
        look(encoded(pixels), ImageFilters())
    assert caught.value.reason == reason


@pytest.mark.parametrize("size", [(64, 64), (300, 100), (100, 300)])
def test_pictures_at_the_limit_stay(size):
    seen = look(encoded(scene(0, size)), ImageFilters())
    assert (seen.width, seen.height) == size


def test_a_cut_picture_goes():
    data = encoded(scene(0), "JPEG")
    with pytest.raises(BadMedia) as caught:
        look(data[: len(data) // 2], ImageFilters())
    assert caught.value.reason == "truncated"
