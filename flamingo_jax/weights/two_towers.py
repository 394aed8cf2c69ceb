"""The folder that the contrastive stage leaves: both towers, and what they are.

As a frozen part of a Flamingo, `contrastive:FOLDER`, the vision encoder alone is read.
"""

import pathlib
from typing import Any

from flamingo_jax.config import VisionConfig
from flamingo_jax.contrastive_config import TwoTowersConfig
from flamingo_jax.weights import stage_folder
from flamingo_jax.weights.errors import BadWeightsFile

Tree = dict[str, Any]

CONFIG = "two_towers.json"
_COMMAND = "experiments.pretrain_contrastive"


def save(directory: pathlib.Path, config: TwoTowersConfig, params: Tree) -> None:
    """Writes config and weights into a folder."""
    stage_folder.save(directory, CONFIG, config, params)


def load(directory: pathlib.Path) -> tuple[TwoTowersConfig, Tree]:
    """Config and float32 parameters of both towers."""
    config = stage_folder.read_config(directory, CONFIG, TwoTowersConfig, _COMMAND)
    return config, stage_folder.read_params(directory)


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
