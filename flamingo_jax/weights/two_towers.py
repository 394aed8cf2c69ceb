"""The folder that the contrastive stage leaves: both towers, and what they are.

`two_towers.json` has the config, `weights.safetensors` all parameters in float32 and the scanned
layout. As a frozen part of a Flamingo, `contrastive:FOLDER`, the vision encoder alone is read.
"""

import json
import pathlib
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from flamingo_jax import config as config_lib
from flamingo_jax.config import VisionConfig
from flamingo_jax.contrastive_config import TwoTowersConfig
from flamingo_jax.weights import tensor_file
from flamingo_jax.weights.errors import BadWeightsFile

Tree = dict[str, Any]

CONFIG, WEIGHTS = "two_towers.json", "weights.safetensors"


def save(directory: pathlib.Path, config: TwoTowersConfig, params: Tree) -> None:
    """Writes config and weights into a folder."""
    tensor_file.save(directory / WEIGHTS, params, np.float32)
    text = json.dumps({"format": 1} | config_lib.to_dict(config), indent=2)
    (directory / CONFIG).write_text(text + "\n")


def read_config(directory: pathlib.Path) -> TwoTowersConfig:
    """What the towers are; BadWeightsFile where the folder says nothing of them."""
    path = directory / CONFIG
    try:
        values = json.loads(path.read_text())
        if values.pop("format") != 1:
            raise ValueError("another format")
        return config_lib.from_dict(TwoTowersConfig, values)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise BadWeightsFile(
            f"{path} cannot be read ({error}): name the model/ folder of a finished "
            "experiments.pretrain_contrastive"
        ) from error


def load(directory: pathlib.Path) -> tuple[TwoTowersConfig, Tree]:
    """Config and float32 parameters of both towers."""
    config = read_config(directory)
    try:
        flat = safetensors.numpy.load_file(directory / WEIGHTS)
    except (OSError, safetensors.SafetensorError) as error:
        raise BadWeightsFile(f"{directory / WEIGHTS} is damaged ({error}): copy it anew") from error
    return config, traverse_util.unflatten_dict(flat, sep="/")


def load_encoder(directory: pathlib.Path, want: VisionConfig) -> Tree:
    """The vision encoder's parameters; BadWeightsFile where it is another than `want`.

    Pictures may be of another size than in training, where the encoder takes any; the paper trains
    at 288 px and goes on at 320.
    """
    config, params = load(directory)
    for name in ("kind", "variant", "activation", "std_conv_eps", "keep_class_token", "post_norm"):
        a, b = getattr(config.vision, name), getattr(want, name)
        if a != b:
            raise BadWeightsFile(
                f"{directory} has vision.{name}={a!r}, the config asks for {b!r}: set "
                f"model.vision.{name}={a!r}, or name other weights"
            )
    a, b = (v.preprocessing.size_px for v in (config.vision, want))
    if want.kind == "vit" and a != b:
        raise BadWeightsFile(
            f"{directory} has positions for {a} px, the config asks for {b}: set "
            f"model.vision.preprocessing.size_px={a}"
        )
    return params["encoder"]
