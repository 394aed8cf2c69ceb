"""`config.json` of a workdir: what was run, and with what."""

import importlib.metadata
import pathlib
import sys
from typing import Any

from data_pipelines.whole_files import write_json

CONFIG_FILE = "config.json"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def write(workdir: pathlib.Path, config: Any) -> None:
    """The resolved recipe, package versions, command line."""
    import tensorflow as tf  # not above: data_pipelines says first how quiet it is to be

    values = {
        "config": config.to_dict(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES}
        | {"tensorflow": tf.__version__},  # of whichever of its packages
        "command": sys.argv,
    }
    write_json(workdir / CONFIG_FILE, values)
