"""A language model's weights, layer by layer, into the tree that `models.lm.LanguageModel` reads.

Importers of any format produce one flat dict a layer with neutral names (`LAYER`), kernels laid out
(in, out) with the heads split; this file nests them and stacks them into segments.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.core.stack import Execution, Segment
from flamingo_jax.models.lm import LanguageModel
from flamingo_jax.weights import finite, module_shapes
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files.layer_stack import LayerStack

Tree = dict[str, Any]

# Neutral name of a tensor -> its place in `lm_block.Block`. D width, N heads, K key heads, H head
# dim, F hidden. Each may have a bias beside it, named `<name>_bias`.
LAYER: dict[str, tuple[str, ...]] = {
    "attn_norm": ("attention_norm", "scale"),  # [D]
    "q": ("attention", "query", "kernel"),  # [D, N, H]
    "k": ("attention", "key", "kernel"),  # [D, K, H]
    "v": ("attention", "value", "kernel"),  # [D, K, H]
    "q_norm": ("attention", "query_norm", "scale"),  # [N * H], or [H]
    "k_norm": ("attention", "key_norm", "scale"),  # [K * H], or [H]
    "o": ("attention", "out", "kernel"),  # [N, H, D]
    "attn_post_norm": ("attention_post_norm", "scale"),  # [D], with `sandwich_norm`
    "ffw_norm": ("ffw_norm", "scale"),  # [D]
    "ffw_post_norm": ("ffw_post_norm", "scale"),  # [D]
    "gate": ("ffw", "gate", "kernel"),  # [D, F]
    "up": ("ffw", "up", "kernel"),  # [D, F]
    "down": ("ffw", "down", "kernel"),  # [F, D]
}


def block(tensors: Mapping[str, np.ndarray]) -> Tree:
    """Nested parameters of one block from its neutral tensors; BadWeightsFile on other names."""
    flat = {}
    for name, value in tensors.items():
        path = LAYER.get(name.removesuffix("_bias"))
        if path is None:
            raise BadWeightsFile(
                f"unknown layer tensor {name!r}: use {sorted(LAYER)}, or one + '_bias'"
            )
        flat[(*path[:-1], "bias") if name.endswith("_bias") else path] = value
    return traverse_util.unflatten_dict(flat)


def assemble(
    config: LanguageModelConfig,
    segments: Sequence[Segment],  # `core.stack.plan(num_layers, every, offset)`
    embedding: np.ndarray,  # [V, D]
    layers: Sequence[Tree],  # num_layers of `block`, first layer first
    final_norm: Tree,  # {"scale": [D]}, and "bias" where the norm has one
    head: np.ndarray | None = None,  # [V, D], None where tied to the embedding
    *,
    position_embedding: np.ndarray | None = None,  # [max_length, D], where positions are learned
    what: str = "language model",  # the file, for messages
) -> Tree:
    """The subtree `language_model` of scanned stacks, leaves of a segment [repeats, depth, ...].

    Every path and shape is compared with the module's own: BadWeightsFile names the first that
    differs. It names a tensor with NaN too, one of a layer when that is read.
    """
    if len(layers) != config.num_layers:
        raise BadWeightsFile(f"{what}: {len(layers)} layers, the config has {config.num_layers}")
    tree: Tree = {"embedding": embedding, "final_norm": final_norm}
    for name, rows in (("head", head), ("position_embedding", position_embedding)):
        if rows is not None:
            tree[name] = rows
    for path, rows in traverse_util.flatten_dict(tree, sep="/").items():
        finite.check(f"{what}: {path}", rows)
    tree["blocks"] = {}
    flat_layers = [traverse_util.flatten_dict(layer) for layer in layers]
    for i, layer in enumerate(flat_layers):
        if odd := layer.keys() ^ flat_layers[0].keys():
            raise BadWeightsFile(f"{what}: layer {i} and layer 0 differ in {'/'.join(min(odd))}")
    for s in segments:
        numbers, lead = range(s.start, s.start + s.repeats * s.depth), (s.repeats, s.depth)
        stacked = {}
        for path in flat_layers[s.start]:
            names = [f"{what}: {'/'.join(path)} of layer {i}" for i in numbers]
            stacked[path] = LayerStack([flat_layers[i][path] for i in numbers], lead, names)
        tree["blocks"][s.name] = {"layers": {"layers": traverse_util.unflatten_dict(stacked)}}
    check(tree, config, segments, what)
    return tree


def check(tree: Tree, config: LanguageModelConfig, segments: Sequence[Segment], what: str) -> None:
    """BadWeightsFile, naming `what`, at the first path or shape that the model has otherwise."""
    make = lambda rngs: LanguageModel(config, Execution(), tuple(segments), rngs=rngs)  # noqa: E731
    module_shapes.check(what, "language_model", tree, make)
