"""`config.json` of a workdir: what was run, and with what."""

import importlib.metadata
import pathlib
import sys
from typing import Any, TypeVar

from etils import epath

from data_pipelines.whole_files import read_json, write_json
from flamingo_jax import config as config_lib
from flamingo_jax.model_directory import ModelCard

T = TypeVar("T")

CONFIG_FILE = "config.json"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def write(workdir: pathlib.Path, config: Any, card: ModelCard | None = None) -> None:
    """The resolved recipe, package versions, command line; of a Flamingo its `card` as `model`."""
    import tensorflow as tf  # not above: data_pipelines says first how quiet it is to be

    values = {
        "config": config.to_dict(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES}
        | {"tensorflow": tf.__version__},  # of whichever of its packages
        "command": sys.argv,
    }
    if card is not None:
        values["model"] = config_lib.to_dict(card)
    write_json(workdir / CONFIG_FILE, values)


def read_model(workdir: epath.Path, kind: type[T]) -> T | None:
    """What a run trains: a Flamingo's `ModelCard`, or a part's own config as its recipe has it.

    None where nothing is said of it; ValueError for nonsense.
    """
    path = workdir / CONFIG_FILE
    try:
        values = read_json(path) if path.is_file() else {}
        said = values if kind is ModelCard else values.get("config", {})
        return config_lib.from_dict(kind, said["model"]) if "model" in said else None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): mend it, or delete it") from error
