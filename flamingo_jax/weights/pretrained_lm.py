"""The folder that a language model's own training leaves, and how a Flamingo reads it.

As a frozen part it is named `pretrained:FOLDER`.
"""

import pathlib
from typing import Any

import jax

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core.stack import Segment
from flamingo_jax.weights import language_model, stage_folder

Tree = dict[str, Any]

CONFIG = "language_model.json"
_COMMAND = "experiments.pretrain_lm"


def save(directory: pathlib.Path, config: LanguageModelConfig, params: Tree) -> None:
    """Writes config and weights into a folder; `params` of one segment, layers stacked."""
    stage_folder.save(directory, CONFIG, config, params)


def read_config(directory: pathlib.Path) -> LanguageModelConfig:
    """BadWeightsFile where the folder says nothing of a language model."""
    return stage_folder.read_config(directory, CONFIG, LanguageModelConfig, _COMMAND)


def load(directory: pathlib.Path, segments: tuple[Segment, ...]) -> Tree:
    """The subtree `language_model` of a Flamingo, its layers in these segments."""
    config, tree = read_config(directory), stage_folder.read_params(directory)
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
        what=str(directory),
    )
