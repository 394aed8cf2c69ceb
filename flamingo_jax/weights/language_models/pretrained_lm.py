"""The folder of a language model alone, and how a Flamingo reads it: `pretrained:FOLDER`.

The model's own training leaves one, and experiments.convert makes one of a published model.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax

from flamingo_jax.config import LanguageModelConfig, Precision
from flamingo_jax.core.stack import Segment, plan
from flamingo_jax.weights import stage_folder
from flamingo_jax.weights.language_models import language_model

Tree = dict[str, Any]

CONFIG = "language_model.json"
_WANTED = "the model/ folder of a finished experiments.pretrain_lm, or one of experiments.convert"


def save(
    directory: pathlib.Path,
    config: LanguageModelConfig,
    params: Tree,  # of one segment, layers stacked
    dtype: Precision = "float32",
    tick: Callable[[int], object] = lambda num_bytes: None,
) -> None:
    """Writes config and weights into a folder; `tick` as of `stage_folder.save`."""
    stage_folder.save(directory, CONFIG, config, params, dtype, tick)


def read_config(directory: pathlib.Path) -> LanguageModelConfig:
    """BadWeightsFile where the folder says nothing of a language model."""
    return stage_folder.read_config(directory, CONFIG, LanguageModelConfig, _WANTED)


def load(directory: pathlib.Path, segments: tuple[Segment, ...]) -> Tree:
    """The subtree `language_model` of a Flamingo, its layers in these segments.

    BadWeightsFile where the weights are not those of the config beside them.
    """
    config, tree = read_config(directory), stage_folder.read_params(directory)
    as_saved = plan(config.num_layers, config.num_layers, 0)
    language_model.check(tree, config, as_saved, str(directory))
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
