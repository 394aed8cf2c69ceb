"""Recipes on released parts: an open language model and an open CLIP image tower.

Sizes of the trained parts and the number of gated blocks are those of OpenFlamingo-3B and 9B and of
IDEFICS-80B. What the trained parts compute is the paper's: squared ReLU, a norm on keys and values,
temporal embeddings, gated blocks from the first language-model block on. Published weights of those
models need their own settings, see docs/differences-from-the-paper.md.

The parts are looked for under the cache folder; another place is named as in
`--config.frozen.language_model=hf_lm:/data/mpt-7b`.
"""

import dataclasses
import functools
from typing import NamedTuple

import ml_collections

from experiments.configs import base, language_models
from flamingo_jax.config import (
    CrossAttentionConfig,
    FlamingoConfig,
    ResamplerConfig,
    VisionConfig,
    to_dict,
)
from flamingo_jax.weights.encoders.clip_tower import PREPROCESSING as CLIP
from flamingo_jax.weights.encoders.clip_tower import SIGLIP

# The last layer's patches without class token and last norm, as OpenFlamingo was trained; IDEFICS
# keeps the class token.
CLIP_L = VisionConfig(
    "vit", "vit_l_14", num_features=256, width=1024, preprocessing=CLIP, activation="quick_gelu"
)
CLIP_H = VisionConfig(
    "vit",
    "vit_h_14",
    num_features=257,
    width=1280,
    preprocessing=CLIP,
    keep_class_token=True,
    activation="gelu",
)
# After the last norm, as its own pooling reads them; SigLIP 2's of the same size likewise.
SIGLIP_SO400M = VisionConfig(
    "vit",
    "siglip_so400m_14",
    num_features=729,
    width=1152,
    preprocessing=dataclasses.replace(SIGLIP, size_px=384),
    post_norm=True,
)


class Size(NamedTuple):
    """Frozen parts, and the shape of what is trained between them."""

    language_model: str
    vision: VisionConfig
    resampler_heads: tuple[int, int]  # number, size
    gated_heads: tuple[int, int]
    every: int
    parts: tuple[str, str]  # where language model and image tower are
    tensor: int = 1


MPT_1B, MPT_7B = "hf_lm:mpt-1b-redpajama-200b", "hf_lm:mpt-7b"
SIZES = {
    "3b_public": Size("mpt_1b", CLIP_L, (8, 64), (8, 64), 1, (MPT_1B, "hf_clip:clip-vit-l-14")),
    "9b_public": Size("mpt_7b", CLIP_L, (8, 64), (8, 64), 4, (MPT_7B, "hf_clip:clip-vit-l-14")),
    "80b_public": Size(
        "llama_65b",
        CLIP_H,
        (16, 96),
        (64, 128),
        4,
        ("hf_lm:llama-65b", "hf_clip:clip-vit-h-14"),
        16,
    ),
}


def model(size: Size) -> FlamingoConfig:
    """The architecture; the resampler is as wide as the image tower, and gated blocks read that."""
    return FlamingoConfig(
        language_model=language_models.get(size.language_model),
        vision=size.vision,
        resampler=ResamplerConfig(
            num_latents=64,
            depth=6,
            width=size.vision.width,
            num_heads=size.resampler_heads[0],
            head_dim=size.resampler_heads[1],
            num_frames=8,
        ),
        cross_attention=CrossAttentionConfig(
            every=size.every, num_heads=size.gated_heads[0], head_dim=size.gated_heads[1]
        ),
        num_new_tokens=2,
    )


def recipe(variant: str) -> ml_collections.ConfigDict:
    """Pages as in MMC4 or OBELICS and pairs as in LAION, weighted as OpenFlamingo did: 1 to 0.2."""
    size = SIZES[variant]
    c = base.base()
    c.variant = variant
    c.model = to_dict(model(size))
    c.frozen = dict(zip(("language_model", "vision"), size.parts, strict=True))
    c.mesh.tensor = size.tensor
    c.join_datasets = True
    c.data.train = {
        "pages": base.pages(path="pages", weight=1.0, batch_size=256, flip=0.5),
        "pairs": base.pairs(path="pairs", weight=0.2, batch_size=512, num_tokens=32, flip=0.5),
    }
    return c


RECIPES = {variant: functools.partial(recipe, variant) for variant in SIZES}
