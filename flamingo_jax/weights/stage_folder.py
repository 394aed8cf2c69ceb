"""A folder of one trained part: its config as JSON, its parameters in one file, layers stacked.

Two commands write such folders: a part's own training, in float32, and experiments.convert, of a
published part, in the precision that was asked for.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

from flax import traverse_util

from flamingo_jax import config as config_lib
from flamingo_jax.config import Precision
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files, tensor_file

Tree = dict[str, Any]
T = TypeVar("T")

WEIGHTS, TOKENIZER = "weights.safetensors", "tokenizer"
_FORMAT = 1


def save(
    directory: pathlib.Path,
    name: str,
    config: Any,
    params: Tree,
    dtype: Precision = "float32",
    tick: Callable[[int], object] = lambda num_bytes: None,
) -> None:
    """Writes `name`, which says what it is, and the weights into a folder.

    `tick` is called with the number of bytes that were written just now.
    """
    tensor_file.save(directory / WEIGHTS, params, dtype, tick)
    text = json.dumps({"format": _FORMAT} | config_lib.to_dict(config), indent=2)
    (directory / name).write_text(text + "\n")


def read_config(directory: pathlib.Path, name: str, cls: type[T], mend: str) -> T:
    """What it is; BadWeightsFile, with the folder that is wanted, `mend`, where none is."""
    path = directory / name
    try:
        values = json.loads(path.read_text())
        if values.pop("format") != _FORMAT:
            raise ValueError("another format")
        return config_lib.from_dict(cls, values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadWeightsFile(f"{path} cannot be read ({error}): name {mend}") from error


def read_params(directory: pathlib.Path, part: str = "") -> Tree:
    """The parameters, or those under the path `part`; read from the file when they are looked at.

    BadWeightsFile where they are missing or damaged.
    """
    path = directory / WEIGHTS
    flat = checkpoint_files.tensors(path, lambda name: name.startswith(part))
    if not flat:
        raise BadWeightsFile(f"{path} has no tensor called {part}...: copy the folder anew")
    return traverse_util.unflatten_dict(flat, sep="/")
