"""A contrastive model as it is opened: its points are those that training compares."""

import jax
import numpy as np
import pytest
from flax import nnx

from data_pipelines.demo import synthetic
from data_pipelines.streams.sequences import InterleavedText, pair_sequence
from experiments.configs import contrastive
from flamingo_jax import contrastive_model
from flamingo_jax.config import from_dict
from flamingo_jax.contrastive_config import TwoTowersConfig
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.images import decode_image
from flamingo_jax.models.two_towers import TwoTowers
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights import stage_folder
from flamingo_jax.weights.encoders import two_towers
from flamingo_jax.weights.errors import BadWeightsFile

CONFIG = from_dict(TwoTowersConfig, contrastive.micro().model.to_dict())
TEXTS = ["a small red circle", "two blue squares", "circle", "x" * 90]
TOKENIZER = Tokenizer.byte_level(CONFIG.text.vocab_size - 2)


def make(rngs):
    return TwoTowers(CONFIG, Execution(), rngs=rngs)


@pytest.fixture(scope="module")
def params():
    return params_lib.init(make, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, params):
    """A workdir."""
    path = tmp_path_factory.mktemp("run") / "model"
    path.mkdir()
    two_towers.save(path, CONFIG, jax.device_get(params))
    TOKENIZER.to_file(path / stage_folder.TOKENIZER)
    return path.parent


@pytest.fixture(scope="module")
def model(folder):
    return contrastive_model.load(folder)


def towers(params):
    graph, _, _ = params_lib.abstract(make)
    return nnx.merge(graph, params)


def pictures(count):
    names = (("red", "circle"), ("blue", "square"), ("green", "circle"))
    preprocessing = CONFIG.vision.preprocessing
    data = [synthetic.draw(*names[i % 3], i) for i in range(count)]
    return np.stack([decode_image(d, preprocessing) for d in data])


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_texts_are_read_as_training_reads_them(model, params):
    rows = [
        pair_sequence(
            InterleavedText(text.encode(), np.zeros(1, np.int64)),
            TOKENIZER,
            np.random.default_rng(0),
            num_tokens=CONFIG.text.max_length,
            prepend_space=0.0,
        )
        for text in TEXTS
    ]
    tokens, masks = (np.stack([getattr(row, n) for row in rows]) for n in ("tokens", "token_mask"))
    want = unit(np.asarray(towers(params).embed_texts(tokens, masks)))
    np.testing.assert_allclose(model.embed_texts(TEXTS), want, atol=1e-6)


def test_pictures_of_several_calls_and_frames(model, params):
    """More than go to the devices at once; of three frames the mean direction."""
    count = contrastive_model._ROWS_A_DEVICE * jax.device_count() + 3
    pixels = pictures(count)
    want = unit(np.asarray(towers(params).embed_pictures(pixels)))
    found = model.embed_media([*pixels[:-3, None], pixels[-3:]])
    assert found.shape == (count - 2, CONFIG.joint_width)
    np.testing.assert_allclose(found[:-1], want[:-3], atol=1e-6)
    np.testing.assert_allclose(found[-1], unit(want[-3:].sum(0)), atol=1e-6)


def test_the_folder_itself_will_do_and_another_will_not(folder, model):
    again = contrastive_model.load(folder / "model")
    np.testing.assert_array_equal(again.embed_texts(TEXTS[:1]), model.embed_texts(TEXTS[:1]))
    with pytest.raises(BadWeightsFile, match="name the model/ folder of a finished"):
        contrastive_model.load(folder.parent)


def test_a_folder_without_its_tokenizer_is_one_line(folder, params, tmp_path):
    two_towers.save(tmp_path, CONFIG, jax.device_get(params))
    with pytest.raises(BadWeightsFile, match="copy the folder anew"):
        contrastive_model.load(tmp_path)
