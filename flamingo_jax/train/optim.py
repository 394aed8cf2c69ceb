"""AdamW as the paper runs it, with its parameter groups named by path.

Paper, appendix B.1.2: global-norm clip 1, weight decay 0.1 but none on the Perceiver Resampler,
learning rate 0 to its peak over 5,000 steps and constant from there; fine-tuned (section 3.2), it
falls "by factors of 10", here at once after every `decay_steps`. Not in the paper: its betas (0.9
and 0.95 here), that gates, norms, biases and embeddings decay (not here), and a learning-rate
multiplier for the gates alone (1; short runs need more, see docs/differences-from-the-paper.md).

Where a frozen part is trained along, the paper gives a learning-rate multiplier of the language
model (0.1 from a pretrained one) and no more. Here its kernels decay, as in its own training, and
of the encoder nothing does; and one norm, of all gradients together, is clipped, the encoder's too,
which its contrastive training clips unit by unit.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

Tree = Any


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """What the update does with the gradient."""

    learning_rate: float = 1e-4
    warmup_steps: int = 5_000
    decay_steps: int = 0  # after the warm-up, by so many steps the rate is a tenth; 0: constant
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    gate_multiplier: float = 1.0
    language_model_multiplier: float = 1.0  # where it is trained

    def __post_init__(self):
        multipliers = ("gate_multiplier", "language_model_multiplier")
        for name in ("learning_rate", "warmup_steps", "decay_steps", "weight_decay", *multipliers):
            if not getattr(self, name) >= 0:  # a NaN is not
                raise ValueError(f"optim.{name}={getattr(self, name)}: use 0 or more")
        for name in ("eps", "clip_norm"):
            if not getattr(self, name) > 0:
                hint = "; inf clips nothing" if name == "clip_norm" else ""
                raise ValueError(f"optim.{name}={getattr(self, name)}: use more than 0{hint}")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optim.{name}={getattr(self, name)}: use 0 to below 1")

    def schedule(self) -> optax.Schedule:
        """Step to learning rate: linear from 0, then constant, or a tenth every `decay_steps`."""
        rate, warmup = self.learning_rate, self.warmup_steps
        after = optax.schedules.constant_schedule(rate)
        if self.decay_steps:
            after = optax.schedules.exponential_decay(rate, self.decay_steps, 0.1, staircase=True)
        if not warmup:
            return after
        up = optax.schedules.linear_schedule(0.0, rate, warmup)
        return optax.schedules.join_schedules([up, after], [warmup])


def is_gate(path: tuple[str, ...]) -> bool:
    """The scalars under a tanh."""
    return path[-1] in ("attention_gate", "ffw_gate")


def is_language_model(path: tuple[str, ...]) -> bool:
    """What is trained of it, where it is."""
    return path[0] == "language_model"


def decays(path: tuple[str, ...]) -> bool:
    """Kernels of gated blocks, graft and language model; the paper exempts the resampler."""
    return path[0] in ("gated_xattn", "graft", "language_model") and path[-1] == "kernel"


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The transformation for a tree of trainable parameters."""

    def multiplied(value: float, rule: Callable[[tuple[str, ...]], bool]):
        return optax.masked(optax.scale(value), mask=lambda tree: _mask(rule, tree))

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=lambda tree: _mask(decays, tree)),
        optax.scale_by_learning_rate(config.schedule()),
        multiplied(config.gate_multiplier, is_gate),
        multiplied(config.language_model_multiplier, is_language_model),
    )


def _mask(rule: Callable[[tuple[str, ...]], bool], tree: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: rule(tuple(key.key for key in path)), tree
    )
