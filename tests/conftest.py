"""For all tests: eight virtual CPU devices, quick compiling, and one small finished model.

JAX reads these flags once, when it starts, so they are set here, before any test imports it.
Sharded code is tested on eight devices wherever the tests run; a test that does not ask for a mesh
runs on the first of them and does not notice. `FLAMINGO_TEST_PLATFORM=cuda` runs them on a GPU, for
the few that ask for one.
"""

import gc
import os

from tests.quick_compiling import FLAGS

os.environ["JAX_PLATFORMS"] = os.environ.get("FLAMINGO_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    ("--xla_force_host_platform_device_count=8", FLAGS, os.environ.get("XLA_FLAGS", ""))
).strip()

import pathlib

import pytest

# Looking through all that JAX and TensorFlow keep for garbage would take a twelfth of the time.
gc.set_threshold(20_000)

LONGEST_FILES = (  # with and without the slow tests
    "train_test.py",
    "export_safetensors_test.py",
    "trained_parts_test.py",
    "serving_test.py",
    "trained_parts_run_test.py",
    "asked_model_test.py",
    "pretrain_contrastive_test.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest begin first, so that no worker is left alone with one."""
    place = {name: i for i, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_collection_finish() -> None:
    """What stands so far stays."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def micro_model_dir(tmp_path_factory) -> pathlib.Path:
    """A model directory of the micro architecture that sees: gates open, frozen parts embedded."""
    from experiments.configs import models
    from flamingo_jax.config import FlamingoConfig, from_dict
    from tests import drawn_model

    directory = tmp_path_factory.mktemp("micro") / "model"
    drawn_model.save(directory, from_dict(FlamingoConfig, models.micro()))
    return directory


@pytest.fixture(scope="session")
def micro_model(micro_model_dir):
    """That model, loaded once for all tests."""
    from flamingo_jax import model_directory

    return model_directory.load(micro_model_dir)
