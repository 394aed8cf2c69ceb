"""One small finished model for the tests of this folder."""

import pathlib

import pytest

from flamingo_jax import model_directory
from flamingo_jax.model import Model
from tests import drawn_model
from tests.experiments.evaluation import drawn_benchmark


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("model") / "model"
    drawn_model.save(directory, drawn_benchmark.model_config())
    return directory


@pytest.fixture(scope="session")
def model(model_dir) -> Model:
    return model_directory.load(model_dir)
