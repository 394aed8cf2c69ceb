"""A language model where it lies against the config that a Flamingo has of it."""

import dataclasses

import jax
import numpy as np
import pytest

from flamingo_jax.config import FlamingoConfig, LinearScaling
from flamingo_jax.core import params
from flamingo_jax.core.stack import Execution, plan
from flamingo_jax.models.lm import LanguageModel
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files, gguf_file
from flamingo_jax.weights.frozen_parts import Source, load_language_model
from flamingo_jax.weights.language_models import gguf_config, pretrained_lm
from tests import tiny_flamingo as tiny
from tests.weights import published_parts

LM = tiny.CONFIG.language_model


def test_a_model_without_its_windows_is_read_as_far_as_they_do_not_matter(tmp_path):
    """Models were made so before there were any, with the window as their longest text."""
    there = dataclasses.replace(LM, sliding_window=8, global_layers=(1, 4), max_length=32)
    _, shapes, _ = params.abstract(lambda rngs: LanguageModel(there, Execution(), rngs=rngs))
    made = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    pretrained_lm.save(tmp_path, there, made)
    source = Source("pretrained", str(tmp_path), checkpoint_files.sha256(tmp_path))

    def load(**changes) -> FlamingoConfig:
        config = tiny.changed(lm=dataclasses.asdict(there) | changes)
        return load_language_model(source, config, plan(6, 2, 1))

    want = load()
    found = load(sliding_window=None, global_layers=(), max_length=8)
    assert jax.tree.structure(found) == jax.tree.structure(want)
    with pytest.raises(BadWeightsFile, match="has sliding_window=8, the config asks for None"):
        load(sliding_window=None, global_layers=(), max_length=9)
    with pytest.raises(BadWeightsFile, match="has sliding_window=8, the config asks for 4"):
        load(sliding_window=4)


def test_what_a_gguf_file_does_not_say_and_what_it_says_otherwise(tmp_path):
    """It names no window of llama's kind; its numbers are float32."""
    path = published_parts.write("gguf", tmp_path)
    there = gguf_config.read(gguf_file.read(path))
    source = Source("gguf", str(path), checkpoint_files.sha256(path))

    def load(**changes) -> FlamingoConfig:
        config = tiny.changed(lm=dataclasses.asdict(there) | changes)
        return load_language_model(source, config, plan(6, 2, 1))

    want = load()
    for same in ({"sliding_window": 8}, {"norm_eps": 1e-5 + 1e-14}, {"rope_dims": there.head_dim}):
        assert there != dataclasses.replace(there, **same)
        assert jax.tree.structure(load(**same)) == jax.tree.structure(want)
    with pytest.raises(BadWeightsFile, match="has norm_eps=1e-05, the config asks for 2e-05: set"):
        load(norm_eps=2e-5)
    with pytest.raises(BadWeightsFile, match=r"has rope_scaling=None, the config asks for Linear"):
        load(rope_scaling=LinearScaling(2.0))
