"""Frozen or trainable, decided by path; parameters as nested dicts; the parameter table.

Paper, section 2: the vision encoder and the language model stay frozen; the resampler, the gated
blocks and the new tokens' embeddings are trained. Its ablations train a frozen part along, which
`FlamingoConfig.trained` names. The split happens before differentiation, so no gradient, optimizer
state or checkpoint of a frozen weight ever exists.
"""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from flamingo_jax.config import DTypePolicy
from flamingo_jax.core.rngs import Rngs

Tree = Any
Path = tuple[str, ...]

TRAINABLE = ("resampler", "gated_xattn", "graft", "new_tokens")


def is_trainable(path: Path, also: Collection[str] = ()) -> bool:
    """True for the resampler, what is added to the language model, the new tokens, and `also`."""
    return path[0] in TRAINABLE or path[0] in also


def abstract(make: Callable[[Rngs], nnx.Module]) -> tuple[nnx.GraphDef, Tree, Tree]:
    """Graph, shapes and logical axes of the module `make` builds; allocates nothing.

    Shapes are nested dicts of `jax.ShapeDtypeStruct`; axes are tuples of names, padded on the left
    with None for stacked layers.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: make(Rngs(0))))
    axes = {}
    for path, variable in state.flat_state():
        names = variable.get_metadata()["logical_axes"]
        axes[path] = (None,) * (len(variable.get_value().shape) - len(names)) + names
    return graph, nnx.to_pure_dict(state), traverse_util.unflatten_dict(axes)


def init(
    make: Callable[[Rngs], nnx.Module],
    seed: int,
    keep: Callable[[Path], bool] | None = None,
    where: Tree | None = None,  # shardings of what is kept; None: all on one device
) -> Tree:
    """Freshly initialised float32 parameters as nested dicts; those whose path `keep` wants.

    The numbers are the same wherever they lie, and with `where` they never lie elsewhere.
    """

    def draw():
        flat = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(make(Rngs(seed)))))
        return traverse_util.unflatten_dict({k: v for k, v in flat.items() if not keep or keep(k)})

    # Run once, so compiling is all the cost: 4 times less on CPU without LLVM's optimisations.
    quick = {"xla_backend_optimization_level": "0"} if jax.default_backend() == "cpu" else {}
    return jax.jit(draw, out_shardings=where).lower().compile(compiler_options=quick)()


def split(params: Tree, also: Collection[str] = ()) -> tuple[Tree, Tree]:
    """(trainable, frozen), by `is_trainable`."""
    parts: tuple[dict, dict] = {}, {}
    for path, leaf in traverse_util.flatten_dict(params).items():
        parts[0 if is_trainable(path, also) else 1][path] = leaf
    return traverse_util.unflatten_dict(parts[0]), traverse_util.unflatten_dict(parts[1])


def merge(trainable: Tree, frozen: Tree) -> Tree:
    """The inverse of `split`."""
    return {**frozen, **trainable}


def cast(trainable: Tree, frozen: Tree, policy: DTypePolicy) -> tuple[Tree, Tree]:
    """Both trees in the dtypes that the policy stores them in."""

    def to(tree, dtype):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)

    return to(trainable, policy.trainable), to(frozen, policy.frozen)


def count(params: Tree) -> int:
    """Numbers in a tree of arrays or shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
