"""What a published CLIP image tower says of itself, held against the recipe's `VisionConfig`.

Shapes give away a tower's width and depth, but not its activation, its heads, or the range of the
pictures it was trained on: LAION's ViT-L/14 has OpenAI's shapes and another GELU. Read is what lies
beside the weights: `config.json` and `preprocessor_config.json` of transformers,
`open_clip_config.json` of open_clip. What is not there is not compared.
"""

import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from flamingo_jax.config import VisionConfig
from flamingo_jax.core.layers import Norm
from flamingo_jax.models.vit import GELU, VARIANTS
from flamingo_jax.weights import checkpoint_files
from flamingo_jax.weights.errors import BadWeightsFile

Json = Mapping[str, Any]
Settings = dict[str, tuple[str, Any]]  # our name -> their key, and the value in our terms

# Our settings by the config's field; those of a variant have none of their own.
_FIELDS = {
    "activation": "activation",
    "size_px": "preprocessing.size_px",
    "mean": "preprocessing.mean",
    "std": "preprocessing.std",
}
_SHAPE = ("patch_px", "width", "depth", "num_heads")

_HF_KEYS = {
    "patch_px": "patch_size",
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
    "size_px": "image_size",
}
# A key that transformers leaves out has this value.
_HF_DEFAULTS = {
    "patch_size": 32,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "image_size": 224,
}
_IDEFICS_DEFAULTS = _HF_DEFAULTS | {
    "patch_size": 14,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}


def check(path: pathlib.Path, kind: str, config: VisionConfig) -> None:
    """BadWeightsFile at the first setting beside the weights that the config has otherwise.

    `path` is the checkpoint's file or folder, `kind` is "hf_clip" or "open_clip".
    """
    folder = path if path.is_dir() else path.parent
    for name, read in _READERS[kind].items():
        file = folder / name
        if file.is_file():
            _compare(file, read(checkpoint_files.json_object(file)), config)


def _compare(file: pathlib.Path, found: Settings, config: VisionConfig) -> None:
    variant, pp = VARIANTS[config.variant], config.preprocessing
    want = {name: getattr(variant, name) for name in _SHAPE} | {
        "activation": config.activation or variant.activation,
        "norm_eps": Norm(1).eps,  # of every norm of `models.vit`
        "size_px": pp.size_px,
        "mean": pp.mean,
        "std": pp.std,
    }
    for name, (key, value) in found.items():
        if not _same(value, want[name]):
            raise BadWeightsFile(
                f"{file} has {name}={value} ({key}), the config asks for {want[name]}: "
                f"{_mend(name, value, found)}"
            )


def _same(a: Any, b: Any) -> bool:
    """Equal, numbers up to the digits that publishers round to."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-3)
    return a == b


def _mend(name: str, value: Any, found: Settings) -> str:
    if name in _SHAPE:
        shape = [found[part][1] for part in _SHAPE]
        fits = [n for n, v in VARIANTS.items() if [getattr(v, part) for part in _SHAPE] == shape]
        if fits:
            return f"set model.vision.variant={fits[0]}, or name other weights"
        return f"no variant of {list(VARIANTS)} has that shape, so name other weights"
    if name == "norm_eps" or (name == "activation" and value not in GELU):
        return f"a vit here has no other {name}, so name other weights"
    return f"set model.vision.{_FIELDS[name]}={value}, or name other weights"


def _hf_config(hf: Json) -> Settings:
    """Of CLIP, of its image tower alone, or of a model that has one, as IDEFICS."""
    kind = hf.get("model_type")
    tower = hf if kind == "clip_vision_model" else hf.get("vision_config")
    tower = hf.get("vision_config_dict") or tower  # where both are, transformers takes this one
    if tower is None and kind != "clip":
        return {}
    defaults = _IDEFICS_DEFAULTS if kind == "idefics" else _HF_DEFAULTS
    values = defaults | dict(tower or {})
    values["hidden_size"] = values.get("embed_dim", values["hidden_size"])  # IDEFICS's name
    values["image_size"] = _side(values["image_size"])
    values["patch_size"] = _side(values["patch_size"])
    return {name: (key, values[key]) for name, key in _HF_KEYS.items()}


def _hf_preprocessor(pp: Json) -> Settings:
    found: Settings = {
        name: (key, tuple(pp[key]))
        for name, key in {"mean": "image_mean", "std": "image_std"}.items()
        if key in pp
    }
    crop = ("crop_size",) if pp.get("do_center_crop", True) else ()
    for key in (*crop, "size", "image_size"):  # the last is IDEFICS's name
        if key in pp:
            return found | {"size_px": (key, _side(pp[key]))}
    return found


def _open_clip(values: Json) -> Settings:
    found: Settings = {}
    if model := values.get("model_cfg"):
        tower = model.get("vision_cfg") or {}
        width = tower.get("width", 768)
        tanh = (tower.get("act_kwargs") or {}).get("approximate") == "tanh"
        gelu = "gelu_tanh" if tanh else "gelu"
        found = {
            "patch_px": ("patch_size", tower.get("patch_size", 16)),
            "width": ("width", width),
            "depth": ("layers", tower.get("layers", 12)),
            "num_heads": ("head_width", width // tower.get("head_width", 64)),
            "activation": ("quick_gelu", "quick_gelu" if model.get("quick_gelu") else gelu),
            "norm_eps": ("norm_kwargs", (tower.get("norm_kwargs") or {}).get("eps", 1e-5)),
            "size_px": ("image_size", _side(tower.get("image_size", 224))),
        }
    pp = values.get("preprocess_cfg") or {}
    return found | {name: (name, tuple(pp[name])) for name in ("mean", "std") if name in pp}


def _side(size: Any) -> Any:
    """The one number in a size, which is a number, a list or a dict of sides."""
    sides = size.values() if isinstance(size, Mapping) else size
    if isinstance(sides, int):
        return sides
    return size if len({*sides}) != 1 else next(iter(sides))


_READERS: dict[str, dict[str, Callable[[Json], Settings]]] = {
    "hf_clip": {
        checkpoint_files.CONFIG: _hf_config,
        "preprocessor_config.json": _hf_preprocessor,
    },
    "open_clip": {"open_clip_config.json": _open_clip},
}
