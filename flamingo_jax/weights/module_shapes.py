"""Whether parameters from a file are those of the module that is to hold them."""

from collections.abc import Callable
from typing import Any

from flax import nnx, traverse_util

from flamingo_jax.core import params as params_lib
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.weights.errors import BadWeightsFile

Tree = dict[str, Any]


def check(
    what: str,  # the file or folder, for the message
    part: str,  # what a parameter's path begins with there
    params: Tree,
    make: Callable[[Rngs], nnx.Module],
) -> None:
    """BadWeightsFile at the first path or shape that the module has otherwise."""
    want = traverse_util.flatten_dict(params_lib.abstract(make)[1], sep="/")
    have = traverse_util.flatten_dict(params, sep="/")
    for path in sorted(want.keys() | have.keys()):
        name = f"{what}: {part}/{path}"
        if path not in have:
            raise BadWeightsFile(f"{name} is missing: the config wants {want[path].shape}")
        if path not in want:
            raise BadWeightsFile(f"{name} has no place in the model: the config is of another kind")
        if have[path].shape != want[path].shape:
            raise BadWeightsFile(
                f"{name} is {have[path].shape}: the config wants {want[path].shape}"
            )
