"""The paper's model ablations: `--config=experiments/configs/ablations.py:ROW`.

Paper: section 3.3 (Table 3) and appendix (Table 10): Flamingo-3B, 250,000 updates. A row changes
one thing of the baseline; those that change only data are single numbers on the command line, as in
`--config.data.train.m3w.p_next=1.0`. Rows that train the frozen parts are not here.

Where the paper gives only a name, the row is sized by the total that its table prints: the small
and the large resampler (3.1B, 3.4B), the layers of the graft (3.3B).
"""

import dataclasses
from collections.abc import Callable

import ml_collections

from experiments.configs import paper, public
from flamingo_jax.config import VisionConfig, to_dict

UPDATES = 250_000  # a million gradient steps over four datasets


def get_config(row: str = "baseline") -> ml_collections.ConfigDict:
    """The recipe of a table's row; ValueError for one that does not exist."""
    if row not in ROWS:
        raise ValueError(f"unknown ablation {row!r}: use one of {sorted(ROWS)}")
    c = paper.recipe("3b")
    c.variant = row
    c.steps = UPDATES
    ROWS[row](c)
    return c


def _cross_attention(**changes) -> Callable[[ml_collections.ConfigDict], None]:
    return lambda c: c.model.cross_attention.update(changes)


def _resampler(**changes) -> Callable[[ml_collections.ConfigDict], None]:
    return lambda c: c.model.resampler.update(changes)


def _vision(config: VisionConfig) -> Callable[[ml_collections.ConfigDict], None]:
    return lambda c: c.model.update(vision=to_dict(config))


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
    # Table 10
    "small_resampler": _resampler(depth=3),
    "large_resampler": _resampler(depth=12),
    "all_previous_images": _cross_attention(attend="all_previous"),
}
