"""Recipes of a language model alone: `--config=experiments/configs/language_model.py:NAME`.

A name is `micro`, or that of a shape in `language_models.py`, such as `chinchilla_1b`. Chinchilla
(Hoffmann et al. 2022) saw 1.4 trillion tokens in rows of 2,048, 1.5 million and then 3 million a
step; of smaller models batches and rates are not known for certain, and the same here for all.
"""

import ml_collections

from experiments.configs import base, language_models
from flamingo_jax.config import LanguageModelConfig, to_dict

_TOKENS = 1.4e12
_ROW, _ROWS = 2_048, 1_024


def get_config(variant: str = "chinchilla_1b") -> ml_collections.ConfigDict:
    """The recipe of a variant; ValueError for a name that does not exist."""
    if variant == "micro":
        return micro()
    if variant not in language_models.LANGUAGE_MODELS:
        names = [*sorted(language_models.LANGUAGE_MODELS), "micro"]
        raise ValueError(f"unknown variant {variant!r}: use one of {names}")
    return recipe(variant, language_models.get(variant))


def recipe(variant: str, model: LanguageModelConfig) -> ml_collections.ConfigDict:
    """A language model on a dataset of texts, `massivetext` in the paper."""
    c = base.run("language_model")
    c.variant = variant
    c.model = to_dict(model)
    c.tokenizer = "sentencepiece:massivetext.model"
    c.execution.attention = "auto"
    c.steps = round(_TOKENS / (_ROW * _ROWS))
    c.optim = {
        "learning_rate": 2e-4,
        "warmup_steps": 1_500,
        "last_share": 0.1,
        "b1": 0.9,
        "b2": 0.95,
        "eps": 1e-8,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
    }
    c.data.train = {"massivetext": base.texts(path="massivetext")}
    return c


def micro() -> ml_collections.ConfigDict:
    """Two small layers, the words of drawn shapes: every code path, in seconds."""
    c = recipe(
        "micro",
        LanguageModelConfig(
            vocab_size=259, num_layers=2, width=32, num_heads=4, head_dim=8, ffw_width=64
        ),
    )
    c.tokenizer = "random"
    c.dtypes.compute = "float32"
    c.execution.remat = "none"
    c.steps = 10
    c.log_every = 1
    c.checkpoint_every = 5
    c.validate_every = 5
    c.validation_batches = 2
    c.optim.warmup_steps = 2
    c.optim.learning_rate = 1e-2
    c.data.source = "synthetic"
    plain = {"path": "synthetic_pages", "batch_size": 8, "num_tokens": 64}
    c.data.train = {"pages": base.texts(**plain)}
    c.data.validation = {"pages": base.texts(**plain | {"split": "heldout"})}
    return c
