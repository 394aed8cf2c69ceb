"""How a language model is trained by itself: AdamW, a warm-up, and a cosine to a tenth.

Hoffmann et al. 2022 (Chinchilla) and Rae et al. 2021 (Gopher): 1,500 steps from 1e-7 to the peak,
then a cosine down to a tenth of it over the whole run; gradients clipped to a norm of 1. Not
stated, or not found: betas of 0.9 and 0.95, and that kernels alone decay, by 0.1.
"""

import dataclasses
from typing import Any

import jax
import optax

Tree = Any
_FLOOR = 1e-7


@dataclasses.dataclass(frozen=True)
class LanguageModelOptimizerConfig:
    """What the update does with the gradient."""

    learning_rate: float = 2e-4
    warmup_steps: int = 1_500
    last_share: float = 0.1  # of the learning rate, at the end
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0

    def __post_init__(self):
        for name in ("learning_rate", "warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:  # a NaN is not
                raise ValueError(f"optim.{name}={getattr(self, name)}: use 0 or more")
        for name in ("eps", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"optim.{name}={getattr(self, name)}: use more than 0")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optim.{name}={getattr(self, name)}: use 0 to below 1")
        if not 0 <= self.last_share <= 1:
            raise ValueError(f"optim.last_share={self.last_share}: use 0 to 1")

    def schedule(self, steps: int) -> optax.Schedule:
        """Step to learning rate over a run of so many steps."""
        if self.warmup_steps >= steps:
            raise ValueError(f"optim.warmup_steps={self.warmup_steps}: use less than steps={steps}")
        peak = self.learning_rate
        return optax.schedules.warmup_cosine_decay_schedule(
            min(_FLOOR, peak), peak, self.warmup_steps, steps, self.last_share * peak
        )


def make_optimizer(
    config: LanguageModelOptimizerConfig, steps: int
) -> optax.GradientTransformation:
    """The transformation for the parameters of `models.lm.LanguageModel`."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=_kernels),
        optax.scale_by_learning_rate(config.schedule(steps)),
    )


def _kernels(tree: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", tree)
