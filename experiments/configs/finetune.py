"""A recipe that trains on from a finished or converted model: its architecture and frozen parts.

    python -m experiments.train --config=experiments/configs/finetune.py:/models/open_flamingo_3b \
        --workdir=runs/mine --config.data.dir=/data

Behind the colon stands a model directory, the workdir of a run or one of its checkpoints, also in a
bucket. The tokenizer is the model's own, so its new tokens keep their rows; so is the precision.
Data are pages and pairs as of `public.py`; text sees the picture before it, as in a prompt and in
OpenFlamingo's training.
"""

import pathlib

import ml_collections

from experiments.configs import base
from experiments.storage import bucket, given_model
from flamingo_jax.config import to_dict
from flamingo_jax.weights.frozen_parts import Source


def get_config(directory: str = "") -> ml_collections.ConfigDict:
    """The recipe; ValueError where no model is named, ModelDirectoryError where none is there."""
    if not directory:
        raise ValueError("no model to train on from: write finetune.py:MODEL_DIRECTORY")
    card = given_model.card("init_from", directory)
    c = base.base()
    c.variant = "finetune"
    c.model = to_dict(card.config)
    c.frozen = {"language_model": _name(card.language_model), "vision": _name(card.vision)}
    c.seed = max(card.language_model.seed, card.vision.seed)  # random parts are drawn from it
    local = not bucket.is_address(directory)
    c.init_from = str(pathlib.Path(directory).absolute()) if local else directory
    c.caption_template = card.caption_template
    c.dtypes = to_dict(card.dtypes)
    c.steps = 2_000
    c.checkpoint_every = 500
    c.optim.learning_rate = 2e-5
    c.optim.warmup_steps = 100
    c.data.train = {
        "pages": base.pages(path="pages", batch_size=8, p_next=0.0, flip=0.5),
        "pairs": base.pairs(path="pairs", batch_size=16, prepend_space=0.0, flip=0.5),
    }
    return c


def _name(source: Source) -> str:
    """A frozen part as a recipe names it, see `experiments/frozen/parts.py`."""
    if source.format == "random":
        return source.format
    return source.package or f"{source.format}:{source.path}"
