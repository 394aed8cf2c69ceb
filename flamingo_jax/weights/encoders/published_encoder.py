"""A published vision encoder: its weights, and what it is by names, shapes and what lies beside.

Nothing has to be said of it but its format. What is not in the files is the publisher's own: the
pictures that CLIP, SigLIP, ImageNet's NFNets and EfficientNet-Lite were trained on.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from flamingo_jax.config import ImagePreprocessing, VisionConfig
from flamingo_jax.models import efficientnet_lite as lite
from flamingo_jax.models import vision
from flamingo_jax.weights import frozen_parts
from flamingo_jax.weights.encoders import clip, clip_config, clip_tower, efficientnet_lite, nfnet
from flamingo_jax.weights.errors import BadWeightsFile, naming
from flamingo_jax.weights.files import checkpoint_files, json_settings, numpy_pickle
from flamingo_jax.weights.name_table import Tree

_SHOWN = 5  # names in a message

# Side of the pictures that each NFNet was measured on, in pixels (arXiv 2102.06171, Table 1).
_NFNET_PX = {"f0": 256, "f1": 320, "f2": 352, "f3": 416, "f4": 512, "f5": 544, "f6": 576}
# timm's numerics; DeepMind's are the model's defaults.
_TIMM = {"activation": "gelu", "std_conv_eps": 1e-5}


class PublishedEncoder(NamedTuple):
    """An encoder in our terms."""

    config: VisionConfig
    params: Tree  # layers stacked, in the file's dtype
    mapped: int  # tensors of the file that it is made of
    unneeded: dict[str, int]  # tensors that it can do without, by what they are; 0: there are none


class _Look(NamedTuple):
    """What names and shapes of a file give away."""

    config: VisionConfig
    num_tensors: int
    unneeded: dict[str, int]


def read(kind: str, path: pathlib.Path) -> PublishedEncoder:
    """The encoder in a file or folder of this format, of FORMATS.

    Raises BadWeightsFile where the file is damaged or of another format, or has a tensor that is
    missing, left over or not finite.
    """
    try:
        config, num_tensors, unneeded = _LOOKS[kind](path)
        vision.check(config)
    except BadWeightsFile:
        raise
    except ValueError as error:  # said beside the weights, and nothing that an encoder here takes
        raise BadWeightsFile(f"{path}: {error}") from error
    params = frozen_parts.read_encoder(kind, path, config)
    mapped = num_tensors - sum(unneeded.values())
    # A ViT's last norm is among the parameters. Of CLIP's patches nothing was trained behind it,
    # and public Flamingos read them before it; SigLIP's pooling reads them after.
    post_norm = kind == "hf_siglip"
    config = dataclasses.replace(config, post_norm=post_norm)
    return PublishedEncoder(config, params, mapped, unneeded)


def _clip(path: pathlib.Path, kind: clip.Format) -> _Look:
    layout = clip.NAMES[kind]
    tower = clip_tower.recognise(path)
    if tower.format != kind:
        raise BadWeightsFile(
            f"{path} is of the format {tower.format}: give --source={tower.format}"
        )
    names = checkpoint_files.names(path)
    prefix = clip.prefix(path, names, layout)
    root = prefix.removesuffix(f"{prefix.removesuffix('.').rpartition('.')[2]}.")
    others = [name.removeprefix(root) for name in names if not name.startswith(prefix)]
    if odd := [name for name in others if not name.startswith(layout.beside)]:
        raise BadWeightsFile(
            f"{path}: {len(odd)} tensors have no place in a CLIP: {', '.join(sorted(odd)[:_SHOWN])}"
        )
    said = clip_config.said(path, kind)
    pictures = {name: said[name] for name in ("mean", "std", "size_px") if name in said}
    config = tower.config(
        pictures if kind == "hf_siglip" else {"fit": "crop"} | pictures,
        activation=said.get("activation"),
        post_norm=f"{prefix}{layout.post_norm}.weight" in names,
    )
    unneeded = {"text tower or projections": len(others)}
    if inside := sum(f"{prefix}{name}" in names for name in layout.unused):
        unneeded["projection or buffer"] = inside
    return _Look(config, len(names), unneeded)


def _timm_nfnet(path: pathlib.Path) -> _Look:
    names = checkpoint_files.names(path)
    with naming(path):
        variant, pictures = nfnet.variant(names, nfnet.TIMM), {}
    folder = path if path.is_dir() else path.parent
    if (file := folder / checkpoint_files.CONFIG).is_file():
        said = json_settings.read(file).section("pretrained_cfg")
        pictures = {name: said.channels(name) for name in ("mean", "std") if name in said.values}
    return _nfnet(names, variant, nfnet.TIMM, pictures, _TIMM)


def _haiku_nfnet(path: pathlib.Path) -> _Look:
    names = [*nfnet.flattened(numpy_pickle.load_tree(path))]
    with naming(path):
        variant = nfnet.variant(names, nfnet.HAIKU)
    return _nfnet(names, variant, nfnet.HAIKU, {}, {})


def _nfnet(
    names: list[str], variant: str, layout: nfnet.Names, pictures: dict, numerics: dict
) -> _Look:
    size_px = _NFNET_PX.get(variant, 320)  # the paper's, of those that were never published
    preprocessing = ImagePreprocessing(size_px=size_px, fit="crop", **pictures)
    config = _shaped("nfnet", variant, preprocessing, **numerics)
    return _Look(config, len(names), {"classifier": len({*layout.classifier} & {*names})})


def _efficientnet_lite(path: pathlib.Path) -> _Look:
    state = checkpoint_files.tensors(path)
    with naming(path):
        variant = efficientnet_lite.variant(state)
    half = (0.5, 0.5, 0.5)  # values in [-1, 1]
    preprocessing = ImagePreprocessing(
        size_px=lite.VARIANTS[variant].size_px, fit="crop", pad=(128, 128, 128), mean=half, std=half
    )
    unneeded = {"classifier": len({*efficientnet_lite.CLASSIFIER} & state.keys())}
    if counters := sum(name.endswith(efficientnet_lite.COUNTER) for name in state):
        unneeded["counters of batch norm"] = counters
    return _Look(_shaped("efficientnet_lite", variant, preprocessing), len(state), unneeded)


def _shaped(kind: str, variant: str, preprocessing: ImagePreprocessing, **options) -> VisionConfig:
    """The config with the shape of what its encoder makes."""
    config = VisionConfig(kind, variant, 0, 0, preprocessing, **options)
    num_features, width = vision.output_shape(config)
    return dataclasses.replace(config, num_features=num_features, width=width)


_LOOKS: dict[str, Callable[[pathlib.Path], _Look]] = {
    **{kind: functools.partial(_clip, kind=kind) for kind in clip.NAMES},
    "timm_nfnet": _timm_nfnet,
    "haiku_nfnet": _haiku_nfnet,
    "efficientnet_lite": _efficientnet_lite,
}
FORMATS = tuple(_LOOKS)
