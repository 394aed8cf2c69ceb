"""How the towers are updated: Adam, each tower's gradient clipped in its own way.

Paper, appendix B.1.3: adaptive gradient clipping of the NFNet (Brock et al. 2021: a unit's gradient
is at most 1e-2 of its weights), a global norm of 10 for BERT, a learning rate from 1e-3 straight
down to 0. Not in the paper: Adam's betas and epsilon, and that nothing decays (0 here; ALIGN 1e-5).
What belongs to neither tower, projections and temperature, is not clipped.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

Array = jax.Array
Tree = Any


@dataclasses.dataclass(frozen=True)
class ContrastiveOptimizerConfig:
    """What the update does with the gradient."""

    learning_rate: float = 1e-3
    warmup_steps: int = 0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0  # of kernels, where more than 0
    vision_clip: float = 1e-2  # adaptive
    text_clip_norm: float = 10.0

    def __post_init__(self):
        for name in ("learning_rate", "warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:  # a NaN is not
                raise ValueError(f"optim.{name}={getattr(self, name)}: use 0 or more")
        for name in ("eps", "vision_clip", "text_clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"optim.{name}={getattr(self, name)}: use more than 0")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optim.{name}={getattr(self, name)}: use 0 to below 1")

    def schedule(self, steps: int) -> optax.Schedule:
        """Step to learning rate: down to 0 at `steps`, after a warm-up from 0 where asked for."""
        if self.warmup_steps >= steps:
            raise ValueError(f"optim.warmup_steps={self.warmup_steps}: use less than steps={steps}")
        down = optax.schedules.linear_schedule(self.learning_rate, 0.0, steps - self.warmup_steps)
        if not self.warmup_steps:
            return down
        up = optax.schedules.linear_schedule(0.0, self.learning_rate, self.warmup_steps)
        return optax.schedules.join_schedules([up, down], [self.warmup_steps])


def make_optimizer(config: ContrastiveOptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The transformation for the parameters of `models.two_towers.TwoTowers`."""
    return optax.chain(
        optax.masked(adaptive_clip(config.vision_clip), _only("encoder")),
        optax.masked(optax.clip_by_global_norm(config.text_clip_norm), _only("text")),
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=_kernels),
        optax.scale_by_learning_rate(config.schedule(steps)),
    )


def adaptive_clip(share: float, eps: float = 1e-3) -> optax.GradientTransformation:
    """Cuts a unit's gradient to `share` of the unit's weights, whose norm counts as `eps` or more.

    `optax.adaptive_grad_clip` knows no stacked layers, whose leaves have one more axis in front.
    """

    def clip(path: tuple, grad: Array, weight: Array) -> Array:
        stacked = any(key.key == "layers" for key in path)
        limit = share * jnp.maximum(unit_norms(weight, stacked), eps)
        norm = unit_norms(grad, stacked)
        return grad * jnp.where(norm > limit, limit / jnp.maximum(norm, 1e-16), 1.0)

    def update(grads: Tree, state: optax.EmptyState, params: Tree):
        return jax.tree_util.tree_map_with_path(clip, grads, params), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def unit_norms(
    x: Array,  # [..., O] a kernel, [O] or [] one unit; stacked with the layers' axis in front
    stacked: bool = False,
) -> Array:  # of the same number of dims
    """Norms over a unit's inputs, of all that lead to one output; of gains and biases, whole."""
    first = int(stacked)
    last = x.ndim - 1 if x.ndim - first > 1 else x.ndim
    squares = jnp.square(x).sum(tuple(range(first, last)), keepdims=True)
    return jnp.sqrt(squares)


def _only(part: str):
    """A mask of the one part of the tree."""

    def mask(tree: Tree) -> Tree:
        return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == part, tree)

    return mask


def _kernels(tree: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", tree)
