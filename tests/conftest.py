"""For all tests: eight virtual CPU devices, quick compiling, and one small finished model.

JAX reads these flags once, when it starts, so they are set here, before any test imports it.
Sharded code is tested on eight devices wherever the tests run; a test that does not ask for a mesh
runs on the first of them and does not notice. `FLAMINGO_TEST_PLATFORM=cuda` runs them on a GPU, for
the few that ask for one. Most of a test's time is compiling, and without
LLVM's optimisations that takes half as long; what is computed stays the same but for rounding. A
program is not split to be compiled in parallel either: other tests have the other cores.
"""

import os

os.environ["JAX_PLATFORMS"] = os.environ.get("FLAMINGO_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    (
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_parallel_codegen_split_count=1",
        os.environ.get("XLA_FLAGS", ""),
    )
).strip()

import math
import pathlib

import numpy as np
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest begins first, so that no worker is left alone with it."""
    items.sort(key=lambda item: item.path.name != "train_test.py")


@pytest.fixture(scope="session")
def micro_model_dir(tmp_path_factory) -> pathlib.Path:
    """A model directory of the micro architecture that sees: gates open, frozen parts embedded.

    Weights are drawn with numpy, as initialising takes JAX ten seconds to compile.
    """
    from flax import traverse_util

    from experiments.configs import models
    from flamingo_jax import model_directory
    from flamingo_jax.config import DTypePolicy, FlamingoConfig, from_dict
    from flamingo_jax.core import params
    from flamingo_jax.core.stack import Execution
    from flamingo_jax.models.flamingo import Flamingo
    from flamingo_jax.tokenizer import Tokenizer
    from flamingo_jax.weights.frozen_parts import Source

    config = from_dict(FlamingoConfig, models.micro())
    _, shapes, _ = params.abstract(lambda rngs: Flamingo(config, Execution(), rngs=rngs))
    rng = np.random.default_rng(0)

    def draw(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        if path[-1] in ("scale", "std", "attention_gate", "ffw_gate"):
            return np.ones(shape, np.float32)
        fan_in = math.prod(shape[:-1]) if path[-1] == "kernel" else 1
        return rng.normal(0, fan_in**-0.5, shape).astype(np.float32)

    flat = traverse_util.flatten_dict(shapes)
    weights = {path: draw(path, leaf.shape) for path, leaf in flat.items()}
    card = model_directory.ModelCard(
        config,
        language_model=Source("random"),
        vision=Source("random"),
        dtypes=DTypePolicy("float32", "float32", "float32"),
    )
    directory = tmp_path_factory.mktemp("micro") / "model"
    tree = traverse_util.unflatten_dict(weights)
    model_directory.save(directory, card, Tokenizer.byte_level(), tree, embed_frozen=True)
    return directory


@pytest.fixture(scope="session")
def micro_model(micro_model_dir):
    """That model, loaded once for all tests."""
    from flamingo_jax import model_directory

    return model_directory.load(micro_model_dir)
