"""A folder of one trained part: its config as JSON, its parameters in float32, layers stacked."""

import json
import pathlib
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from flamingo_jax import config as config_lib
from flamingo_jax.weights import tensor_file
from flamingo_jax.weights.errors import BadWeightsFile

Tree = dict[str, Any]
T = TypeVar("T")

WEIGHTS, TOKENIZER = "weights.safetensors", "tokenizer"
_FORMAT = 1


def save(directory: pathlib.Path, name: str, config: Any, params: Tree) -> None:
    """Writes `name`, which says what it is, and the weights into a folder."""
    tensor_file.save(directory / WEIGHTS, params, np.float32)
    text = json.dumps({"format": _FORMAT} | config_lib.to_dict(config), indent=2)
    (directory / name).write_text(text + "\n")


def read_config(directory: pathlib.Path, name: str, cls: type[T], command: str) -> T:
    """What it is; BadWeightsFile, naming the command that writes such a folder, where none is."""
    path = directory / name
    try:
        values = json.loads(path.read_text())
        if values.pop("format") != _FORMAT:
            raise ValueError("another format")
        return config_lib.from_dict(cls, values)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise BadWeightsFile(
            f"{path} cannot be read ({error}): name the model/ folder of a finished {command}"
        ) from error


def read_params(directory: pathlib.Path) -> Tree:
    """The parameters; BadWeightsFile where they are missing or damaged."""
    path = directory / WEIGHTS
    try:
        flat = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise BadWeightsFile(f"{path} is damaged ({error}): copy it anew") from error
    return traverse_util.unflatten_dict(flat, sep="/")
