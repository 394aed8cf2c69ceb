"""Synthetic records: their split, their pictures, and the bad ones."""

import collections
import io
import itertools

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data_pipelines.demo import synthetic
from data_pipelines.errors import BadRecord
from data_pipelines.records import from_example, validate


def read(builder, split):
    dataset = builder.as_dataset(split=split).as_numpy_iterator()
    return {document.id: document for document in map(from_example, dataset)}


def test_built_datasets_hold_what_was_drawn(tmp_path):
    builders = synthetic.prepare(tmp_path)
    assert set(builders) == {"synthetic_pairs", "synthetic_pages"}
    for split in ("train", "heldout"):
        pairs = read(builders["synthetic_pairs"], split)
        assert pairs == {document.id: document for document in synthetic.pairs(split)}
        pages = read(builders["synthetic_pages"], split)
        assert pages == {document.id: document for document in synthetic.pages(split)}
        for document in (*pairs.values(), *pages.values()):
            validate(document)
    loaded = tfds.builder_from_directory(builders["synthetic_pairs"].data_dir)
    assert loaded.info.splits["train"].num_examples == 72
    assert loaded.info.splits["heldout"].num_examples == 24


def test_no_held_out_caption_is_trained_on_but_its_words_are():
    trained = {document.text for document in synthetic.pairs("train")}
    held_out = {document.text for document in synthetic.pairs("heldout")}
    assert not trained & held_out
    words = set(" ".join(trained).split())
    assert set(" ".join(held_out).split()) <= words
    for page in synthetic.pages("train"):
        assert not any(caption in page.text for caption in held_out)


@pytest.mark.parametrize("shape", synthetic.SHAPES)
def test_pictures_show_the_colour_on_white(shape):
    image = Image.open(io.BytesIO(synthetic.draw("blue", shape, 0)))
    colors = collections.Counter(image.getdata())
    assert {(255, 255, 255), (0, 0, 255)} <= set(colors)
    assert colors[(0, 0, 255)] > 100
    edges = [image.getpixel((x, y)) for x in range(64) for y in (0, 63)]
    assert set(edges) == {(255, 255, 255)}, "the shape is cut off"


def test_all_pictures_differ():
    both = itertools.product(synthetic.COLORS, synthetic.SHAPES, range(2))
    pictures = [synthetic.draw(*one) for one in both]
    assert len(set(pictures)) == len(pictures) == 96


def test_bad_records_are_those_asked_for(tmp_path):
    bad = ("truncated", "no_image", "not_an_image", "truncated")
    builders = synthetic.prepare(tmp_path, bad)
    pairs = read(builders["synthetic_pairs"], "train")
    found = collections.Counter(
        name.split("/")[1].rsplit("-")[0] for name in pairs if "_bad" in name
    )
    assert found == {"truncated": 2, "no_image": 1, "not_an_image": 1}
    assert len(pairs) == 72 + 4
    with pytest.raises(BadRecord) as caught:
        validate(pairs["synthetic_bad/no_image-1"])
    assert caught.value.reason == "no_media"
    cut = Image.open(io.BytesIO(pairs["synthetic_bad/truncated-0"].media[0]))
    with pytest.raises(OSError):
        cut.load()
    clean = synthetic.prepare(tmp_path)["synthetic_pairs"]
    assert clean.info.splits["train"].num_examples == 72
