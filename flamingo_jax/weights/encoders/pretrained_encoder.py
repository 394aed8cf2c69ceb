"""The folder of a vision encoder alone, and how a Flamingo reads it: `pretrained:FOLDER`.

experiments.convert makes one of a published encoder. Its config says what the weights are and which
pictures they want, and can stand in a recipe as it is. What is no matter of the weights a recipe
may have otherwise: how pictures are fitted, a ViT's class token, and its last norm, which is there.
"""

import math
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from flamingo_jax.config import Precision, VisionConfig
from flamingo_jax.models import vision
from flamingo_jax.weights import stage_folder
from flamingo_jax.weights.errors import BadWeightsFile

Tree = dict[str, Any]

CONFIG = "vision_encoder.json"
PART = "encoder/"  # what stands before every parameter's path, beside a text tower too
_WANTED = "a folder that experiments.convert made of a vision encoder"
_POST_NORM = "post_norm"


def save(
    directory: pathlib.Path,
    config: VisionConfig,
    params: Tree,  # of the encoder, layers stacked
    dtype: Precision = "float32",
    tick: Callable[[int], object] = lambda num_bytes: None,
) -> None:
    """Writes config and weights into a folder; `tick` as of `stage_folder.save`."""
    stage_folder.save(directory, CONFIG, config, {"encoder": params}, dtype, tick)


def read_config(directory: pathlib.Path) -> VisionConfig:
    """BadWeightsFile where the folder says nothing of an encoder."""
    return stage_folder.read_config(directory, CONFIG, VisionConfig, _WANTED)


def load(directory: pathlib.Path, want: VisionConfig) -> Tree:
    """The encoder's parameters; BadWeightsFile where it is another than `want`.

    Pictures must be normalised as its own were, and where the published files did not say with
    which activation they were trained (None), `want` is believed.
    """
    found = read_config(directory)
    names = ["kind", "variant", "std_conv_eps", "preprocessing.mean", "preprocessing.std"]
    check(directory, found, want, names if found.activation is None else [*names, "activation"])
    params = stage_folder.read_params(directory, PART)["encoder"]
    if want.post_norm and _POST_NORM not in params:
        raise BadWeightsFile(
            f"{directory} has no last norm: set model.vision.post_norm=False, or name other weights"
        )
    return params if want.post_norm else {k: v for k, v in params.items() if k != _POST_NORM}


def check(
    directory: pathlib.Path, found: VisionConfig, want: VisionConfig, names: Iterable[str]
) -> None:
    """BadWeightsFile at the first of these settings that differs, or at a ViT's other size.

    Pictures of an encoder that takes any may be of another size than in training; the paper trains
    at 288 px and goes on at 320.
    """
    for name in names:
        a, b = (_setting(config, name) for config in (found, want))
        if not _same(a, b):
            raise BadWeightsFile(
                f"{directory} has vision.{name}={a!r}, the config asks for {b!r}: set "
                f"model.vision.{name}={a!r}, or name other weights"
            )
    a, b = (v.preprocessing.size_px for v in (found, want))
    if want.kind == "vit" and a != b:
        raise BadWeightsFile(
            f"{directory} has positions for {a} px, the config asks for {b}: set "
            f"model.vision.preprocessing.size_px={a}"
        )


def _setting(config: VisionConfig, name: str) -> Any:
    if name == "activation":
        return vision.activation(config)
    owner, _, field = name.rpartition(".")
    return getattr(getattr(config, owner) if owner else config, field)


def _same(a: Any, b: Any) -> bool:
    """Equal; means and deviations up to the digits that publishers round to."""
    if isinstance(a, tuple):
        return all(math.isclose(x, y, rel_tol=1e-3) for x, y in zip(a, b, strict=True))
    return a == b
