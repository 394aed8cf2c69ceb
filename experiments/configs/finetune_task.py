r"""The paper's fine-tuning of a finished model on one task; docs/finetuning.md has the whole way.

    python -m experiments.train --config=experiments/configs/finetune_task.py:/models/flamingo \
        --workdir=runs/vqav2 --config.data.dir=/data

Paper: section 3.2. The vision encoder learns too, from pictures of 480 pixels, where it takes any
size; the language model stays frozen; the schedule is short, the learning rate small and falling.
What rate (3e-8 to 1e-5), how it falls, how many steps, batches of 8 or 16, with or without colours
and flips: chosen for each task on held-out examples, and not printed. The numbers here are a start
for a sweep over the same.

The data are what `data_pipelines.build --source=benchmark` made; the last hundredth is held out.
For `summarize` and `aot_compile` a variant of `paper.py` or `public.py` may stand in a model's
place.
"""

import ml_collections

from experiments.configs import base, finetune, paper, public
from flamingo_jax.config import VisionConfig, from_dict, to_dict
from flamingo_jax.models import vision

SIZE_PX = 480


def get_config(model: str = "") -> ml_collections.ConfigDict:
    """The recipe; raises as that of `finetune.py`."""
    variants = paper.RECIPES | public.RECIPES
    c = variants[model]() if model in variants else finetune.get_config(model)
    c.variant = "finetune_task"
    encoder = from_dict(VisionConfig, c.model.vision.to_dict(), "model.vision.")
    if encoder.takes_any_size:
        larger = max(SIZE_PX, encoder.preprocessing.size_px)
        c.model.vision = to_dict(vision.at_size(encoder, larger))
    c.model.trained = tuple(dict.fromkeys((*c.model.trained, "vision")))
    c.execution.images_at_once = 1  # all that a picture's features need is kept for the way back
    c.steps = 6_000
    c.checkpoint_every = c.validate_every = 500
    c.optim.learning_rate = 1e-5
    c.optim.decay_steps = 2_000
    c.data.train = {"task": base.answers(path="task", split="train[:99%]")}
    c.data.validation = {"task": base.answers(path="task", split="train[99%:]")}
    return c
