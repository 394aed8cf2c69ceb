"""The trained parts of a Flamingo here, put back among the tensors of the IDEFICS they came from.

The inverse of `idefics`: its folder holds all tensors, of which the trained ones are replaced. The
others are views into its files, which nothing reads before they are written.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from flax import traverse_util

from flamingo_jax.config import FlamingoConfig, to_dict
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights.flamingos import idefics, idefics_names
from flamingo_jax.weights.flamingos.conversion import Tree


def check(
    config: FlamingoConfig,
    tokenizer: Tokenizer,
    folder: pathlib.Path,  # of transformers, with the frozen parts
    tensors: Mapping[str, np.ndarray],  # in it
) -> None:
    """ValueError for a model that the IDEFICS there does not compute, with what is in the way.

    Its code takes other sizes too, but not with the config.json and the tokenizer that are there.
    """
    want, new_tokens = idefics.structure(folder, tensors)
    theirs, ours = (traverse_util.flatten_dict(to_dict(c), sep=".") for c in (want, config))
    for name, value in theirs.items():
        if ours[name] != value:
            raise ValueError(
                f"{name}={ours[name]}: the IDEFICS in {folder} computes with {value}, and nothing "
                "else"
            )
    if tokenizer.new_tokens != new_tokens:
        raise ValueError(
            f"new tokens {list(tokenizer.new_tokens)}: the IDEFICS in {folder} has "
            f"{list(new_tokens)}, in this order"
        )
    if not tokenizer.starts_with_bos:
        raise ValueError("a prompt of this model begins without <s>: IDEFICS's processor writes it")


def tensors(
    config: FlamingoConfig,
    params: Tree,  # resampler, gated_xattn, new_tokens
    theirs: Mapping[str, np.ndarray],  # the folder's
) -> dict[str, np.ndarray]:
    """All tensors by IDEFICS's names, in the folder's order; trained ones in the dtype of `params`.

    Their shapes are the folder's, which tell a gate's [1] from [1, 1, D].
    """
    found, flat = dict(theirs), traverse_util.flatten_dict(params)
    for path, source in idefics_names.table(config).items():
        stacked = isinstance(source, list)
        sources, layers = (source, flat[path]) if stacked else ([source], [flat[path]])
        for one, layer in zip(sources, layers, strict=True):
            shape = theirs[one.name].shape
            turned = path[-1] == "kernel"  # (in, out) here, with heads apart
            found[one.name] = layer.reshape(shape[::-1]).T if turned else layer.reshape(shape)
    return found
