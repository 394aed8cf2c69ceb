"""Which image tower of CLIP or SigLIP lies at a path: format and variant, by names and shapes."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from flamingo_jax.config import ImagePreprocessing, VisionConfig
from flamingo_jax.models.vit import VARIANTS
from flamingo_jax.weights.encoders import clip
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files

# What OpenAI's and LAION's towers were trained on. Training with padding pads with the mean.
PREPROCESSING = ImagePreprocessing(
    size_px=224,
    pad=(123, 117, 104),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
SIGLIP = ImagePreprocessing(
    size_px=224, fit="stretch", pad=(128, 128, 128), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)


class Tower(NamedTuple):
    """A tower of `models.vit`, and how its file names things."""

    format: clip.Format
    variant: str
    size_px: int  # the least that has as many patches
    num_patches: int
    width: int

    def config(
        self,
        pictures: Mapping[str, Any],  # what of `ImagePreprocessing` is otherwise than usual
        *,
        keep_class_token: bool = False,
        **options: Any,
    ) -> VisionConfig:
        """The tower's, with further fields of `VisionConfig` as `options`."""
        usual = SIGLIP if self.format == "hf_siglip" else PREPROCESSING
        return VisionConfig(
            "vit",
            self.variant,
            num_features=self.num_patches + keep_class_token,
            width=self.width,
            preprocessing=dataclasses.replace(usual, **{"size_px": self.size_px} | dict(pictures)),
            keep_class_token=keep_class_token,
            **options,
        )


def recognise(path: pathlib.Path) -> Tower:
    """The tower at `path`, a file or a folder; BadWeightsFile where there is no one that is known.

    Of a safetensors file only the header is read, of a torch file only a few small tensors.
    """
    looked_at = {
        leaf
        for names in clip.NAMES.values()
        for leaf in (names.marker, names.patch_embedding, names.position_embedding)
    }
    norms = tuple(f"{names.attention_norm}.bias" for names in clip.NAMES.values())
    state = checkpoint_files.tensors(path, lambda name: name.endswith((*looked_at, *norms)))
    for kind, names in clip.NAMES.items():
        found = clip.prefixes(state, names)
        if len(found) == 1:
            return _tower(path, kind, names, found[0], state)
    raise BadWeightsFile(
        f"{path} holds no CLIP image tower, no tensor called {clip.HUGGING_FACE.marker} or "
        f"{clip.OPEN_CLIP.marker}, and no SigLIP: give a folder of transformers or of open_clip"
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
    num_patches = positions - (names.class_embedding is not None)
    depth = 0
    while f"{prefix}{names.layer.format(depth)}{names.attention_norm}.bias" in state:
        depth += 1
    shape = (names.family, patch_px, width, depth)
    fits = [n for n, v in VARIANTS.items() if (v.family, v.patch_px, v.width, v.depth) == shape]
    side = math.isqrt(max(num_patches, 0))
    if not fits or side * side != num_patches:
        raise BadWeightsFile(
            f"{path}: a tower of {depth} layers of width {width} with patches of {patch_px} px and "
            f"{positions} positions: none of {list(VARIANTS)}"
        )
    return Tower(kind, fits[0], side * patch_px, num_patches, width)
