"""The demo's first stage on features that carry words through a linear map, and noise."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.records import Document
from experiments.frozen import alignment
from experiments.frozen.feature_cache import FeatureCache
from flamingo_jax.tokenizer import Tokenizer
from tests import tokenizer_test

WORDS = [f"{a}{b}" for a in "abcdefgh" for b in "stuvwxyz"]  # 64 of two letters
PLACES, CHANNELS, WIDTH = 4, 24, 16
CONFIG = alignment.AlignmentConfig(
    steps=150, batch_size=32, width=12, dropout=0.0, other_texts=0.25
)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.byte_level()


@pytest.fixture(scope="module")
def embedding(tokenizer):
    return (
        np.random.default_rng(0).normal(size=(tokenizer.base_vocab_size, WIDTH)).astype(np.float32)
    )


@pytest.fixture(scope="module")
def features(tokenizer, embedding, tmp_path_factory):
    """Each word's picture holds its letters' mean embedding, off centre and unevenly scaled."""
    rng = np.random.default_rng(1)
    into = rng.normal(size=(WIDTH, CHANNELS))
    scale, shift = np.exp(rng.normal(size=CHANNELS)), 3 * rng.normal(size=CHANNELS)
    words = np.stack([embedding[tokenizer.encode(f" {w}")].mean(0) for w in WORDS]) @ into
    noisy = words[:, None] + 0.1 * rng.normal(size=(len(WORDS), PLACES, CHANNELS))
    path = tmp_path_factory.mktemp("features") / "features-0.npy"
    np.save(path, (noisy * scale + shift).astype(np.float16))
    names = [document(w).media_ids[0] for w in WORDS]
    path.with_suffix(".json").write_text(str(names).replace("'", '"'))
    return FeatureCache(path)


def document(word):
    return Document(word, word, (0,), (word.encode(),), {"tags": [word[0]]})


def test_a_text_is_split_as_in_a_sentence_whatever_the_tokenizer(tmp_path):
    """LLaMA's kind puts a space before what it is given, which has one already."""
    tokenizer_test.train_sentencepiece(tmp_path / "trained.model")
    like_llama = Tokenizer.from_sentencepiece(tmp_path / "trained.model")
    rows = np.random.default_rng(0).normal(size=(like_llama.base_vocab_size, 4))
    documents = [document("cat"), document("flamingo")]
    found = alignment.Texts.read(documents, like_llama, rows)
    ids = [like_llama.encode(text) for text in ("cat", "flamingo", "c", "f")]
    means = np.stack([rows[i].mean(0) for i in ids])
    want = (means - means.mean(0)) / (means.std(0) + 1e-6)
    np.testing.assert_allclose(found.vectors, want, atol=1e-6)


def test_pictures_find_words_they_were_not_trained_with(features, tokenizer, embedding):
    """Trained on 48 words, which have all letters, the map ranks the text of 16 others first."""
    heldout = [w for i, w in enumerate(WORDS) if (i // 8 + i) % 4 == 0]
    train = [w for w in WORDS if w not in heldout]
    found = alignment.fit(
        features, [document(w) for w in train], tokenizer, embedding, CONFIG, seed=0
    )
    assert found["kernel"].shape == (CHANNELS, WIDTH)
    assert found["bias"].shape == (WIDTH,)

    def pictures(words):
        pooled = np.stack([features[document(w).media_ids[0]].mean(0) for w in words])
        return pooled.astype(np.float32) @ found["kernel"] + found["bias"]

    def texts(words):
        return np.stack([embedding[tokenizer.encode(f" {w}")].mean(0) for w in words])

    scores = pictures(heldout) @ (texts(heldout) - texts(train).mean(0)).T
    first = (scores.argmax(1) == np.arange(len(heldout))).mean()
    assert first > 0.3, first  # chance is 1 in 16
    np.testing.assert_allclose(pictures(WORDS).mean(0), 0, atol=0.2)  # features are centred


def test_the_map_is_made_once_and_the_same(features, tokenizer, embedding, monkeypatch):
    args = ([document(w) for w in WORDS], tokenizer, embedding, CONFIG)
    first = alignment.open_or_fit(features, *args, seed=3)
    again = alignment.fit(features, *args, seed=3)
    monkeypatch.setattr(alignment, "fit", None)
    kept = alignment.open_or_fit(features, *args, seed=3)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        np.testing.assert_array_equal(value, kept[name])
    documents, *others = args
    tagged = [dataclasses.replace(d, metadata={"tags": ["ab"]}) for d in documents]
    for changed in (
        (tagged, *others),
        (documents, tokenizer, embedding + 1, CONFIG),
    ):  # another map, which is made
        with pytest.raises(TypeError, match="not callable"):
            alignment.open_or_fit(features, *changed, seed=3)


def test_pictures_that_could_not_be_read_are_left_out(features, tokenizer, embedding):
    documents = [document(w) for w in WORDS] + [document("broken")]
    config = alignment.AlignmentConfig(steps=2)
    found = alignment.fit(features, documents, tokenizer, embedding, config, seed=0)
    assert np.isfinite(found["kernel"]).all()
