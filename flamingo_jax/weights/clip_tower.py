"""Which CLIP image tower lies at a path: its format and variant, by the names and shapes there."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from flamingo_jax.config import ImagePreprocessing, VisionConfig
from flamingo_jax.models.vit import VARIANTS
from flamingo_jax.weights import checkpoint_files, clip
from flamingo_jax.weights.errors import BadWeightsFile

# What OpenAI's and LAION's towers were trained on. Training with padding pads with the mean.
PREPROCESSING = ImagePreprocessing(
    size_px=224,
    pad=(123, 117, 104),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
_FORMATS: dict[Literal["hf_clip", "open_clip"], clip.Names] = {
    "hf_clip": clip.HUGGING_FACE,  # first, for its names end as open_clip's do
    "open_clip": clip.OPEN_CLIP,
}


class Tower(NamedTuple):
    """A tower of `models.vit`, and how its file names things."""

    format: Literal["hf_clip", "open_clip"]
    variant: str
    size_px: int
    num_patches: int
    width: int

    def config(
        self,
        fit: Literal["pad", "crop", "stretch"],
        *,
        mean: tuple[float, float, float] = PREPROCESSING.mean,
        std: tuple[float, float, float] = PREPROCESSING.std,
        keep_class_token: bool = False,
        **options: Any,
    ) -> VisionConfig:
        """The tower's, with further fields of `VisionConfig` as `options`."""
        return VisionConfig(
            "vit",
            self.variant,
            num_features=self.num_patches + keep_class_token,
            width=self.width,
            preprocessing=dataclasses.replace(
                PREPROCESSING, size_px=self.size_px, fit=fit, mean=mean, std=std
            ),
            keep_class_token=keep_class_token,
            **options,
        )


def recognise(path: pathlib.Path) -> Tower:
    """The tower at `path`, a file or a folder; BadWeightsFile where there is no one that is known.

    Of a safetensors file only the header is read, of a torch file only a few small tensors.
    """
    looked_at = {
        leaf
        for names in _FORMATS.values()
        for leaf in (names.class_embedding, names.patch_embedding, names.position_embedding)
    }
    norms = tuple(f"{names.attention_norm}.bias" for names in _FORMATS.values())
    state = checkpoint_files.tensors(path, lambda name: name.endswith((*looked_at, *norms)))
    for kind, names in _FORMATS.items():
        found = clip.prefixes(state, names)
        if len(found) == 1:
            return _tower(path, kind, names, found[0], state)
    raise BadWeightsFile(
        f"{path} holds no CLIP image tower, no tensor called {clip.HUGGING_FACE.class_embedding} "
        f"or {clip.OPEN_CLIP.class_embedding}: give a folder of transformers or of open_clip"
    )


def _tower(
    path: pathlib.Path, kind, names: clip.Names, prefix: str, state: Mapping[str, np.ndarray]
) -> Tower:
    try:
        patches = state[prefix + names.patch_embedding]
        width, _, patch_px, _ = patches.shape
        (positions, _) = state[prefix + names.position_embedding].shape
    except (KeyError, ValueError) as error:
        raise BadWeightsFile(f"{path}: not a whole CLIP image tower ({error})") from error
    depth = 0
    while f"{prefix}{names.layer.format(depth)}{names.attention_norm}.bias" in state:
        depth += 1
    fits = [
        n for n, v in VARIANTS.items() if (v.patch_px, v.width, v.depth) == (patch_px, width, depth)
    ]
    side = math.isqrt(max(positions - 1, 0))
    if not fits or side * side != positions - 1:
        raise BadWeightsFile(
            f"{path}: a tower of {depth} layers of width {width} with patches of {patch_px} px and "
            f"{positions} positions: none of {list(VARIANTS)}"
        )
    return Tower(kind, fits[0], side * patch_px, positions - 1, width)
