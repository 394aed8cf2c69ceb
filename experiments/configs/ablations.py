"""The paper's model ablations: `--config=experiments/configs/ablations.py:ROW`.

Paper: section 3.3 (Table 3) and appendix (Table 10): Flamingo-3B, 250,000 updates. A row changes
one thing of the baseline; those that change only data are single numbers on the command line, as in
`--config.data.train.m3w.p_next=1.0`.

Rows that train a frozen part along begin at random, or where `--config.frozen.language_model` or
`--config.frozen.vision` says, which the rows named `pretrained` want to be told.

Where the paper gives only a name, the row is sized by the total that its table prints: the small
and the large resampler (3.1B, 3.4B), the layers of the graft (3.3B). Not said is how many texts
co-training adds to a step: 64 of 2,048 tokens are about as many as all other tokens, and the
printed 5.34 s are about twice the 2.42 s without them.
"""

import dataclasses
from collections.abc import Callable

import ml_collections

from experiments.configs import base, paper, public
from flamingo_jax.config import FrozenPart, VisionConfig, to_dict

RANDOM, PRETRAINED = "random", "pretrained"  # where a trained part begins
UPDATES = 250_000  # a million gradient steps over four datasets


def get_config(row: str = "baseline") -> ml_collections.ConfigDict:
    """The recipe of a table's row; ValueError for one that does not exist."""
    if row not in ROWS:
        raise ValueError(f"unknown ablation {row!r}: use one of {sorted(ROWS)}")
    c = paper.recipe("3b")
    c.variant = row
    c.steps = UPDATES
    c.join_datasets = False  # which not every row can
    ROWS[row](c)
    return c


def _cross_attention(**changes) -> Callable[[ml_collections.ConfigDict], None]:
    return lambda c: c.model.cross_attention.update(changes)


def _resampler(**changes) -> Callable[[ml_collections.ConfigDict], None]:
    return lambda c: c.model.resampler.update(changes)


def _vision(config: VisionConfig) -> Callable[[ml_collections.ConfigDict], None]:
    return lambda c: c.model.update(vision=to_dict(config))


def _trained(part: FrozenPart, start: str) -> Callable[[ml_collections.ConfigDict], None]:
    def change(c: ml_collections.ConfigDict) -> None:
        c.model.trained = (part,)
        c.frozen[part] = RANDOM if start == RANDOM else ""  # to be named
        if part == "vision":
            c.execution.images_at_once = 2  # with all that the way back needs of them

    return change


def _co_training(start: str) -> Callable[[ml_collections.ConfigDict], None]:
    """Texts in the mixture, with a smaller learning rate for what has learnt from texts before."""

    def change(c: ml_collections.ConfigDict) -> None:
        _trained("language_model", start)(c)
        c.data.train.massivetext = base.texts(path="massivetext", weight=1.0, batch_size=64)
        c.optim.language_model_multiplier = 1.0 if start == RANDOM else 0.1

    return change


ROWS: dict[str, Callable[[ml_collections.ConfigDict], None]] = {
    "baseline": lambda c: None,
    # Table 3
    "round_robin": lambda c: c.update(accumulate=False, steps=4 * UPDATES),  # as many gradients
    "no_tanh": _cross_attention(gating="none"),
    "vanilla_xattn": _cross_attention(kind="vanilla"),
    "grafting": _cross_attention(kind="graft", graft_depth=18),
    "single_in_the_middle": _cross_attention(every=12, offset=12),
    "every_4th": _cross_attention(every=4),
    "every_2nd": _cross_attention(every=2),
    "mlp": _resampler(kind="mlp"),
    "transformer": _resampler(kind="transformer"),
    "clip_vit_l_14": _vision(public.CLIP_L),
    "nfnet_f0": _vision(dataclasses.replace(paper.NFNET_F6, variant="f0")),
    "unfrozen_lm_random": _trained("language_model", RANDOM),
    "unfrozen_lm_pretrained": _trained("language_model", PRETRAINED),
    # Table 10
    "small_resampler": _resampler(depth=3),
    "large_resampler": _resampler(depth=12),
    "all_previous_images": _cross_attention(attend="all_previous"),
    "unfrozen_vision_random": _trained("vision", RANDOM),
    "unfrozen_vision_pretrained": _trained("vision", PRETRAINED),
    "co_training_random": _co_training(RANDOM),
    "co_training_pretrained": _co_training(PRETRAINED),
}
