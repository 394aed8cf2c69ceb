"""Frozen tensors of the language model that a checkpoint repeats, held against the model's own.

OpenFlamingo's filter leaves them out, but not in every way of saving. One that differs would mean
that the language model was trained on too, or is another.
"""

import pathlib
from collections.abc import Mapping

import numpy as np

from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files
from flamingo_jax.weights.flamingos.conversion import compare_rows
from flamingo_jax.weights.language_models import hf_lm_names

_WRAPPED = ".decoder_layer."  # stands between a layer's number and its tensors


def compare(
    file: pathlib.Path,  # the checkpoint, for messages
    tensors: Mapping[str, np.ndarray],  # its names without "lang_encoder."
    path: pathlib.Path,  # of the language model
    family: str,  # its `model_type`
) -> dict[str, float]:
    """The largest difference of each tensor that both have; BadWeightsFile where they differ."""
    names = {hf_lm_names.bare_name(name.replace(_WRAPPED, "."), family): name for name in tensors}
    found: dict[str, float] = {}
    if not names:
        return found
    own = checkpoint_files.tensors(path, lambda name: hf_lm_names.bare_name(name, family) in names)
    for own_name, base in own.items():
        name = names[hf_lm_names.bare_name(own_name, family)]
        copy, where = tensors[name], f"{file}: {name}"
        if copy.shape != base.shape:
            raise BadWeightsFile(
                f"{where} is {list(copy.shape)}, that of {path} {list(base.shape)}: give the "
                "language model it was trained on"
            )
        rows = (len(base), -1) if base.ndim > 1 else (1, -1)
        found[name] = compare_rows(where, copy.reshape(rows), base.reshape(rows))
    return found
