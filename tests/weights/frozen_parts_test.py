"""A language model where it lies against the config that a Flamingo has of it."""

import dataclasses

import jax
import numpy as np
import pytest

from flamingo_jax.config import FlamingoConfig
from flamingo_jax.core import params
from flamingo_jax.core.stack import Execution, plan
from flamingo_jax.models.lm import LanguageModel
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files
from flamingo_jax.weights.frozen_parts import Source, load_language_model
from flamingo_jax.weights.language_models import pretrained_lm
from tests import tiny_flamingo as tiny

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
