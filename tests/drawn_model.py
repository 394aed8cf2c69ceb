"""A finished model that sees, its weights drawn: gates open, frozen parts embedded.

Weights are drawn with numpy, as initialising takes JAX ten seconds to compile.
"""

import math
import pathlib

import numpy as np
from flax import traverse_util

from flamingo_jax import model_directory
from flamingo_jax.config import DTypePolicy, FlamingoConfig
from flamingo_jax.core import params
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights.frozen_parts import Source


def save(directory: pathlib.Path, config: FlamingoConfig) -> None:
    """Writes the model directory of such a model."""
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
    tree = traverse_util.unflatten_dict(weights)
    model_directory.save(directory, card, Tokenizer.byte_level(), tree, embed_frozen=True)
