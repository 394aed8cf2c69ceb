"""The folder that the contrastive stage leaves: both towers, and what they are.

As a frozen part of a Flamingo, `contrastive:FOLDER`, the vision encoder alone is read.
"""

import pathlib
from typing import Any

from flamingo_jax.config import VisionConfig
from flamingo_jax.contrastive_config import TwoTowersConfig
from flamingo_jax.weights import stage_folder
from flamingo_jax.weights.encoders import pretrained_encoder

Tree = dict[str, Any]

CONFIG = "two_towers.json"
_WANTED = "the model/ folder of a finished experiments.pretrain_contrastive"


def save(directory: pathlib.Path, config: TwoTowersConfig, params: Tree) -> None:
    """Writes config and weights into a folder."""
    stage_folder.save(directory, CONFIG, config, params)


def read_config(directory: pathlib.Path) -> TwoTowersConfig:
    """BadWeightsFile where the folder says nothing of two towers."""
    return stage_folder.read_config(directory, CONFIG, TwoTowersConfig, _WANTED)


def load_encoder(directory: pathlib.Path, want: VisionConfig) -> Tree:
    """The vision encoder's parameters; BadWeightsFile where it is another than `want`."""
    names = ("kind", "variant", "activation", "std_conv_eps", "keep_class_token", "post_norm")
    pretrained_encoder.check(directory, read_config(directory).vision, want, names)
    return stage_folder.read_params(directory, pretrained_encoder.PART)["encoder"]
