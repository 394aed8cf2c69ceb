"""A finished model in one folder, all its parameters in plain safetensors, for other frameworks.

Beside `model.json` and `tokenizer/`, as they are in the model directory, lie the parameters in
files of bounded size with an index (`weights.tensor_shards`): first what was trained, in files of
its own, then the frozen parts, wherever their sources are. `flamingo_jax.load` opens it too.

Names are paths, layers apart: `layer_000` is the first of a stack. SEGMENT is `before` (the blocks
below the first gated one, as one group), `groups` (of `cross_attention.every` blocks) or `rest`
(fewer, behind the last whole group), see `core.stack.plan`:

    gated_xattn/SEGMENT/layer_GROUP/...                        stands before its group
    language_model/blocks/SEGMENT/layer_GROUP/layer_BLOCK/...  a block of the group
    resampler/blocks/layer_LAYER/...
    vision/encoder/...                                         as its file in `models/` names them

A kernel of a linear map is [in, out], the transpose of PyTorch's; of attention those of query, key
and value are [in, heads, head_dim], that of out is [heads, head_dim, out]; a convolution's is
[height, width, in, out], without `in` where it is depthwise. `embedding` and `head` are
[rows, width], and the rows of new tokens, `new_tokens/...`, come behind them. Dtypes are
`dtypes.trainable` and `dtypes.frozen` of `model.json`.
"""

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from flamingo_jax import model_directory
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import unroll
from flamingo_jax.weights.files import tensor_shards
from flamingo_jax.weights.files.tensor_shards import Group

Tree = Any


def groups(directory: str | pathlib.Path) -> list[Group]:
    """Trained and frozen parameters by name, to be read as they are written.

    Raises as `model_directory.load` does.
    """
    card = model_directory.read_card(directory)
    params = model_directory.read_params(directory)
    trained, frozen = params_lib.split(params, card.config.trained)
    return [
        Group(_flat(trained), card.dtypes.trainable),
        Group(_flat(frozen), card.dtypes.frozen),
    ]


def _flat(params: Tree) -> dict[str, Any]:
    on_host = jax.tree.map(lambda x: np.asarray(x) if isinstance(x, jax.Array) else x, params)
    return traverse_util.flatten_dict(unroll(on_host), sep="/")


def write(
    directory: str | pathlib.Path,  # a model directory or the workdir of a training run
    parameters: list[Group],  # its `groups`
    folder: pathlib.Path,
    tick: Callable[[int], object] = lambda num_bytes: None,
) -> int:
    """Writes the model into a folder that is there, and returns the number of tensors.

    `tick` is called with the number of bytes that were written just now.
    """
    directory = model_directory.find(directory)
    shutil.copyfile(directory / model_directory.CARD, folder / model_directory.CARD)
    shutil.copytree(directory / model_directory.TOKENIZER, folder / model_directory.TOKENIZER)
    return tensor_shards.save(folder, parameters, tick=tick)
