"""The frozen parts of a model by source and hash: where they come from, and how they are read.

A run never saves a frozen weight; it saves a `Source`, and whoever opens the model reads the same
file again, held against its SHA-256.
"""

import dataclasses
import hashlib
import pathlib
from typing import Any, Literal

import numpy as np
from flax import traverse_util

from flamingo_jax.cache import cache_dir
from flamingo_jax.config import FlamingoConfig
from flamingo_jax.core import params
from flamingo_jax.core.stack import Execution, Segment
from flamingo_jax.models.lm import LanguageModel
from flamingo_jax.models.vision import VisionEncoder
from flamingo_jax.weights import efficientnet_lite, gguf, language_model
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.torch_checkpoint import load_state_dict

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Source:
    """One frozen part. `path` is absolute, or starts at the cache folder."""

    format: Literal["gguf", "efficientnet_lite", "random"]
    path: str = ""
    sha256: str = ""
    package: str = ""  # what brings the file where it is missing
    seed: int = 0  # of a random part


def checked_file(source: Source) -> pathlib.Path:
    """The source's file, there and unchanged.

    Raises:
      BadWeightsFile: it is missing, or its SHA-256 is another.
    """
    path = cache_dir() / source.path  # an absolute path stays as it is
    bring = f"python -m data_pipelines.fetch {source.package}" if source.package else "its origin"
    if not path.is_file():
        raise BadWeightsFile(f"{path} is missing: bring it with {bring}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        raise BadWeightsFile(
            f"{path} has SHA-256 {found}, the model was made with {source.sha256}: delete the file "
            f"and bring it anew with {bring}"
        )
    return path


def load_language_model(
    source: Source, config: FlamingoConfig, segments: tuple[Segment, ...]
) -> Tree:
    """The subtree `language_model`, numpy float32, in the scanned layout."""
    lm = config.language_model
    if source.format == "random":
        return params.init(
            lambda rngs: LanguageModel(lm, Execution(), segments, rngs=rngs), source.seed
        )
    found, weights = gguf.load_llama(checked_file(source))
    if found != lm:
        raise BadWeightsFile(f"{source.path} holds {found}, the config asks for {lm}")
    layers = [language_model.block(layer) for layer in weights["layers"]]
    norm = {"scale": weights["final_norm"]}
    return language_model.assemble(
        lm, segments, weights["embedding"], layers, norm, weights.get("head")
    )


def load_vision(source: Source, config: FlamingoConfig) -> Tree:
    """The subtree `vision` without its channel statistics, float32."""
    if source.format == "random":
        tree = params.init(lambda rngs: VisionEncoder(config.vision, rngs=rngs), source.seed)
        return {"encoder": tree["encoder"]}
    flat = efficientnet_lite.convert(load_state_dict(checked_file(source)), config.vision.variant)
    return {"encoder": traverse_util.unflatten_dict(flat, sep="/")}


def neutral_channels(config: FlamingoConfig) -> Tree:
    """Channel statistics that change nothing, until the training pictures are known."""
    width = config.vision.width
    return {"mean": np.zeros(width, np.float32), "std": np.ones(width, np.float32)}
