"""Features of every picture in one file: those that the encoder makes, or one line and no file."""

import collections
import shutil
import types

import numpy as np
import pytest
from flax import nnx

from data_pipelines.demo import synthetic
from data_pipelines.reading import documents
from data_pipelines.reading.record_index import RecordIndex
from data_pipelines.reading.splits import shard_slices
from experiments.configs import contrastive, flamingo
from experiments.frozen import feature_cache, parts
from experiments.training import datasets
from flamingo_jax.config import VisionConfig, from_dict
from flamingo_jax.core import params as params_lib
from flamingo_jax.images import decode_image
from flamingo_jax.models.vision import VisionEncoder

VISION = from_dict(VisionConfig, contrastive.micro().model.vision.to_dict())  # a thin ViT


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Into a folder, of drawn pictures; and the encoder's parameters."""
    root = tmp_path_factory.mktemp("drawn")
    synthetic.prepare(root)
    recipe = flamingo.get_config("micro")
    recipe.data.dir = str(root)
    dataset = datasets.folder(recipe, "synthetic_pairs")
    card = types.SimpleNamespace(
        config=types.SimpleNamespace(vision=VISION), vision=parts.model_card(recipe).vision
    )
    params = params_lib.init(lambda rngs: VisionEncoder(VISION, rngs=rngs), 0)

    def build(folder):
        return feature_cache.open_or_build(card, params, {dataset: "heldout"}, folder), dataset

    return build, params


def test_a_file_holds_what_the_encoder_makes_of_each_picture(build, tmp_path, monkeypatch):
    make, params = build
    monkeypatch.setattr(feature_cache, "_CHUNK", 7)
    found, dataset = make(tmp_path)
    index = RecordIndex(shard_slices(dataset, "heldout", ""))
    pictures = {
        name: data
        for document in documents.read(index, range(len(index)))
        for name, data in zip(document.media_ids, document.media, strict=True)
    }
    assert set(found) == set(pictures)
    assert len(pictures) % 7
    pixels = np.stack([decode_image(data, VISION.preprocessing) for data in pictures.values()])
    encoder = params_lib.abstract(lambda rngs: VisionEncoder(VISION, rngs=rngs))[0]
    expected = nnx.merge(encoder, params)(pixels[:, None, None])[:, 0, 0]
    ours = np.stack([found[name] for name in pictures])
    np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=2e-3)  # float16


def test_a_disk_without_room_for_it_is_one_line_and_no_file(build, tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free=1 << 10))
    with pytest.raises(OSError, match=r"features of \d+ pictures take .* are free: make room"):
        build[0](tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_cut_is_made_again(build, tmp_path):
    found, _ = build[0](tmp_path)
    whole = found.path.read_bytes()
    for cut in (b"", whole[: len(whole) // 2]):
        found.path.write_bytes(cut)
        again, _ = build[0](tmp_path)
        assert again.path.read_bytes() == whole
