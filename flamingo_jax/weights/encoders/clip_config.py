"""What a published image tower of CLIP or SigLIP says of itself, held against the recipe's config.

Shapes give away a tower's width and depth, but not its activation, its heads, or the range of the
pictures it was trained on: LAION's ViT-L/14 has OpenAI's shapes and another GELU. Read is what lies
beside the weights: `config.json` and `preprocessor_config.json` of transformers,
`open_clip_config.json` of open_clip. What is not there is not compared.
"""

import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from flamingo_jax.config import VisionConfig
from flamingo_jax.models.vit import GELU, VARIANTS
from flamingo_jax.weights.encoders import clip
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files, json_settings
from flamingo_jax.weights.files.json_settings import JsonSettings

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
_SIGLIP_DEFAULTS = _HF_DEFAULTS | {
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_IDEFICS_DEFAULTS = _HF_DEFAULTS | {
    "patch_size": 14,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}


def check(path: pathlib.Path, kind: clip.Format, config: VisionConfig) -> None:
    """BadWeightsFile at the first setting beside the weights that the config has otherwise.

    And at one that is of no type it can have, and for a variant of another network. `path` is the
    checkpoint's file or folder, `kind` is its format.
    """
    family = clip.NAMES[kind].family
    own = [name for name, variant in VARIANTS.items() if variant.family == family]
    if config.variant not in own:
        raise BadWeightsFile(
            f"{path} is read as {kind}, and model.vision.variant={config.variant!r} is another "
            f"network: use one of {own}, or name other weights"
        )
    for file, found in _read(path, kind):
        _compare(file, found, config)


def said(path: pathlib.Path, kind: str) -> dict[str, Any]:
    """What lies beside the weights says of the tower, by our names; `path` and `kind` as `check`.

    `activation`, `size_px`, `mean`, `std` and others, each only where it is said; BadWeightsFile
    for one of a type it cannot have.
    """
    values: dict[str, Any] = {}
    for _, found in _read(path, kind):
        values |= {name: value for name, (_, value) in found.items()}
    return values


def _read(path: pathlib.Path, kind: str) -> Iterator[tuple[pathlib.Path, Settings]]:
    folder = path if path.is_dir() else path.parent
    for name, read in _READERS[kind].items():
        file = folder / name
        if file.is_file():
            yield file, read(json_settings.read(file))


def _compare(file: pathlib.Path, found: Settings, config: VisionConfig) -> None:
    variant, pp = VARIANTS[config.variant], config.preprocessing
    want = {name: getattr(variant, name) for name in _SHAPE} | {
        "activation": config.activation or variant.activation,
        "norm_eps": variant.norm_eps,
        "size_px": pp.size_px,
        "mean": pp.mean,
        "std": pp.std,
    }
    for name, (key, value) in found.items():
        if not _same(value, want[name]):
            raise BadWeightsFile(
                f"{file} has {name}={value} ({key}), the config asks for {want[name]}: "
                f"{_mend(name, value, found, variant.family)}"
            )


def _same(a: Any, b: Any) -> bool:
    """Equal, numbers up to the digits that publishers round to."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-3)
    return a == b


def _mend(name: str, value: Any, found: Settings, family: str) -> str:
    if name in _SHAPE:
        shape = [found[part][1] for part in _SHAPE]
        own = {n: v for n, v in VARIANTS.items() if v.family == family}
        fits = [n for n, v in own.items() if [getattr(v, part) for part in _SHAPE] == shape]
        if fits:
            return f"set model.vision.variant={fits[0]}, or name other weights"
        return f"no variant of {list(own)} has that shape, so name other weights"
    if name == "norm_eps" or (name == "activation" and value not in GELU):
        return f"a vit here has no other {name}, so name other weights"
    return f"set model.vision.{_FIELDS[name]}={value}, or name other weights"


def _hf_config(hf: JsonSettings) -> Settings:
    """Of CLIP or SigLIP, of its image tower alone, or of a model that has one, as IDEFICS."""
    kind, tower = hf.text("model_type", ""), hf
    if kind not in ("clip_vision_model", "siglip_vision_model"):
        older = hf.section("vision_config_dict")  # where both are, transformers takes this one
        whole = kind in ("clip", "siglip")
        if not older.values and not whole and hf.values.get("vision_config") is None:
            return {}
        tower = older if older.values else hf.section("vision_config")
    defaults = _IDEFICS_DEFAULTS if kind == "idefics" else _HF_DEFAULTS
    defaults = _SIGLIP_DEFAULTS if kind.startswith("siglip") else defaults
    found = {
        name: (key, _HF_READERS.get(name, JsonSettings.whole)(tower, key, defaults[key]))
        for name, key in _HF_KEYS.items()
    }
    if "embed_dim" in tower.values:  # IDEFICS's name
        found["width"] = ("embed_dim", tower.whole("embed_dim", 1))
    return found


_HF_READERS: dict[str, Callable[..., Any]] = {  # those of the others are of whole numbers
    "patch_px": JsonSettings.side,
    "size_px": JsonSettings.side,
    "activation": lambda tower, key, default: _tanh(tower.text(key, default)),
    "norm_eps": JsonSettings.positive,
}


def _tanh(name: str) -> str:
    return "gelu_tanh" if name == "gelu_pytorch_tanh" else name


def _hf_preprocessor(pp: JsonSettings) -> Settings:
    there = {key for key, value in pp.values.items() if value is not None}
    found: Settings = {
        name: (key, pp.channels(key))
        for name, key in {"mean": "image_mean", "std": "image_std"}.items()
        if key in there
    }
    crops = "do_center_crop" not in pp.values or (
        "do_center_crop" in there and pp.flag("do_center_crop", True)
    )
    keys = ("crop_size",) if crops else ()
    for key in (*keys, "size", "image_size"):  # the last is IDEFICS's name
        if key in there:
            return found | {"size_px": (key, pp.side(key, 1))}
    return found


def _open_clip(values: JsonSettings) -> Settings:
    found: Settings = {}
    model, pp = values.section("model_cfg"), values.section("preprocess_cfg")
    if model.values:
        tower = model.section("vision_cfg")
        width, layers = tower.whole("width", 768), tower.values.get("layers", 12)
        tanh = tower.section("act_kwargs").values.get("approximate") == "tanh"
        gelu = "gelu_tanh" if tanh else "gelu"
        found = {
            "patch_px": ("patch_size", tower.side("patch_size", 16)),
            "width": ("width", width),
            # a ResNet's is a list, which no tower here has
            "depth": ("layers", layers if isinstance(layers, list) else tower.whole("layers", 12)),
            "num_heads": ("head_width", width // tower.whole("head_width", 64)),
            "activation": ("quick_gelu", "quick_gelu" if model.flag("quick_gelu", False) else gelu),
            "norm_eps": ("norm_kwargs", tower.section("norm_kwargs").positive("eps", 1e-5)),
            "size_px": ("image_size", tower.side("image_size", 224)),
        }
    return found | {n: (n, pp.channels(n)) for n in ("mean", "std") if n in pp.values}


_OF_TRANSFORMERS: dict[str, Callable[[JsonSettings], Settings]] = {
    checkpoint_files.CONFIG: _hf_config,
    "preprocessor_config.json": _hf_preprocessor,
}
_READERS = {
    "hf_clip": _OF_TRANSFORMERS,
    "hf_siglip": _OF_TRANSFORMERS,
    "open_clip": {"open_clip_config.json": _open_clip},
}
