"""The folder that a language model's own training leaves, and how a Flamingo reads it.

`language_model.json` has the config, `weights.safetensors` all parameters in float32, layers
stacked. As a frozen part it is named `pretrained:FOLDER`.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from flamingo_jax import config as config_lib
from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core.stack import Segment
from flamingo_jax.weights import language_model, tensor_file
from flamingo_jax.weights.errors import BadWeightsFile

Tree = dict[str, Any]

CONFIG, WEIGHTS, TOKENIZER = "language_model.json", "weights.safetensors", "tokenizer"


def save(directory: pathlib.Path, config: LanguageModelConfig, params: Tree) -> None:
    """Writes config and weights into a folder; `params` of one segment, layers stacked."""
    tensor_file.save(directory / WEIGHTS, params, np.float32)
    text = json.dumps({"format": 1} | config_lib.to_dict(config), indent=2)
    (directory / CONFIG).write_text(text + "\n")


def read_config(directory: pathlib.Path) -> LanguageModelConfig:
    """BadWeightsFile where the folder says nothing of a language model."""
    path = directory / CONFIG
    try:
        values = json.loads(path.read_text())
        if values.pop("format") != 1:
            raise ValueError("another format")
        return config_lib.from_dict(LanguageModelConfig, values)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise BadWeightsFile(
            f"{path} cannot be read ({error}): name the model/ folder of a finished "
            "experiments.pretrain_lm"
        ) from error


def load(directory: pathlib.Path, segments: tuple[Segment, ...]) -> Tree:
    """The subtree `language_model` of a Flamingo, its layers in these segments."""
    config = read_config(directory)
    try:
        flat = safetensors.numpy.load_file(directory / WEIGHTS)
    except (OSError, safetensors.SafetensorError) as error:
        raise BadWeightsFile(f"{directory / WEIGHTS} is damaged ({error}): copy it anew") from error
    tree = traverse_util.unflatten_dict(flat, sep="/")
    (segment,) = tree["blocks"].values()
    stacked = segment["layers"]["layers"]  # leaves [1, layers, ...]
    layers = [jax.tree.map(lambda leaf, i=i: leaf[0, i], stacked) for i in range(config.num_layers)]
    return language_model.assemble(
        config,
        segments,
        tree["embedding"],
        layers,
        tree["final_norm"],
        tree.get("head"),
        position_embedding=tree.get("position_embedding"),
    )
