"""Published CLIP and SigLIP image towers -> parameters of `models.vit`.

Two namings of CLIP's: Hugging Face's (also inside IDEFICS) and OpenAI's original one, which
open_clip and OpenFlamingo keep; Hugging Face's of SigLIP. Layers are stacked, heads are split off
the kernels. The projection into the joint space and SigLIP's pooling are left out, and so is the
last norm where the model has none.
"""

import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import numpy as np

from flamingo_jax.core import params
from flamingo_jax.models.vit import VARIANTS, ViT
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.name_table import Path, Source, Tree, take


class Names(NamedTuple):
    """How one publisher names the parameters."""

    marker: str  # a parameter of every tower, once
    class_embedding: str | None
    patch_embedding: str
    patch_bias: str | None
    position_embedding: str
    pre_norm: str | None
    post_norm: str
    layer: str  # prefix of layer {}
    attention_norm: str
    ffw_norm: str
    qkv_weights: tuple[str, ...]  # three, or one that holds query, key and value in this order
    qkv_biases: tuple[str, ...]
    out: str
    up: str
    down: str
    unused: tuple[str, ...]
    beside: tuple[str, ...]  # starts of names that a whole CLIP has outside its image tower
    family: Literal["clip", "siglip"] = "clip"  # of the variants


HUGGING_FACE = Names(
    marker="embeddings.class_embedding",
    class_embedding="embeddings.class_embedding",
    patch_embedding="embeddings.patch_embedding.weight",
    patch_bias=None,
    position_embedding="embeddings.position_embedding.weight",
    pre_norm="pre_layrnorm",  # sic
    post_norm="post_layernorm",
    layer="encoder.layers.{}.",
    attention_norm="layer_norm1",
    ffw_norm="layer_norm2",
    qkv_weights=tuple(f"self_attn.{x}_proj.weight" for x in "qkv"),
    qkv_biases=tuple(f"self_attn.{x}_proj.bias" for x in "qkv"),
    out="self_attn.out_proj",
    up="mlp.fc1",
    down="mlp.fc2",
    unused=("embeddings.position_ids",),  # a buffer of older releases
    beside=("text_model.", "text_projection.", "visual_projection.", "logit_scale", "logit_bias"),
)

_POOLING = (
    *("probe", "attention.in_proj_weight", "attention.in_proj_bias"),
    *(
        f"{name}.{leaf}"
        for name in ("attention.out_proj", "layernorm", "mlp.fc1", "mlp.fc2")
        for leaf in ("weight", "bias")
    ),
)
SIGLIP = HUGGING_FACE._replace(
    marker="embeddings.patch_embedding.bias",
    class_embedding=None,
    patch_bias="embeddings.patch_embedding.bias",
    pre_norm=None,
    unused=(*HUGGING_FACE.unused, *(f"head.{name}" for name in _POOLING)),
    family="siglip",
)

OPEN_CLIP = Names(
    marker="class_embedding",
    class_embedding="class_embedding",
    patch_embedding="conv1.weight",
    patch_bias=None,
    position_embedding="positional_embedding",
    pre_norm="ln_pre",
    post_norm="ln_post",
    layer="transformer.resblocks.{}.",
    attention_norm="ln_1",
    ffw_norm="ln_2",
    qkv_weights=("attn.in_proj_weight",),
    qkv_biases=("attn.in_proj_bias",),
    out="attn.out_proj",
    up="mlp.c_fc",
    down="mlp.c_proj",
    unused=("proj",),
    beside=(
        *("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "attn_mask"),
        *("text_projection", "text.", "logit_scale", "logit_bias"),
    ),
)


Format = Literal["hf_clip", "open_clip", "hf_siglip"]
NAMES: dict[Format, Names] = {
    "hf_clip": HUGGING_FACE,  # first, for its names end as the others' do
    "open_clip": OPEN_CLIP,
    "hf_siglip": SIGLIP,
}


def prefixes(tensors: Iterable[str], names: Names) -> list[str]:
    """What stands before a tower's names: "vision_model.", in IDEFICS "model.vision_model."."""
    found = (name for name in tensors if name.endswith(names.marker))
    return sorted(name.removesuffix(names.marker) for name in found)


def prefix(path: pathlib.Path, tensors: Iterable[str], names: Names) -> str:
    """What stands before the one tower's names; BadWeightsFile, naming `path`, for none or two."""
    found = prefixes(tensors, names)
    if len(found) != 1:
        raise BadWeightsFile(
            f"{path}: {len(found)} tensors are called {names.marker}: not one image tower"
        )
    return found[0]


def parameters(
    state: Mapping[str, np.ndarray],
    variant: str,
    *,
    format: Format,
    prefix: str,
    post_norm: bool = False,
    size_px: int | None = None,
) -> Tree:
    """Parameters of ViT(variant), scanned, from the names under `prefix`; others are not looked at.

    `prefixes` finds it: "vision_model." of transformers, in IDEFICS "model.vision_model."; of
    open_clip "visual.", in OpenFlamingo "vision_encoder.". The variant is one of the format's
    family. Raises BadWeightsFile where names or shapes are not the variant's.
    """
    names = NAMES[format]
    make = lambda rngs: ViT(variant, post_norm=post_norm, size_px=size_px, rngs=rngs)  # noqa: E731
    _, want, _ = params.abstract(make)
    table = _table(names, variant)
    unused = names.unused
    if not post_norm:
        unused += tuple(source.name for source in _norm((), names.post_norm).values())
        table = {path: source for path, source in table.items() if path[0] != "post_norm"}
    tensors = {k.removeprefix(prefix): a for k, a in state.items() if k.startswith(prefix)}
    what = f"{names.family} weights of {variant} under {prefix!r}"
    return take(tensors, table, want, ignore=unused, what=what)


def _table(names: Names, variant: str) -> dict[Path, Source | list[Source]]:
    """Every parameter's path and source; one source a layer for those of the layers."""
    v = VARIANTS[variant]
    heads = (v.num_heads, v.width // v.num_heads)
    table: dict[Path, Source | list[Source]] = {
        ("patch_embedding",): Source(names.patch_embedding, lambda a: a.transpose(2, 3, 1, 0)),
        ("position_embedding",): Source(names.position_embedding, lambda a: a),
        **_norm(("post_norm",), names.post_norm),
    }
    if names.class_embedding is not None:
        table["class_embedding",] = Source(names.class_embedding, lambda a: a[None])
    if names.patch_bias is not None:
        table["patch_bias",] = Source(names.patch_bias, lambda a: a)
    if names.pre_norm is not None:
        table |= _norm(("pre_norm",), names.pre_norm)
    layers = [_layer(names, names.layer.format(i), heads) for i in range(v.depth)]
    for path in layers[0]:
        table["blocks", "layers", *path] = [layer[path] for layer in layers]
    return table


def _layer(names: Names, prefix: str, heads: tuple[int, int]) -> dict[Path, Source]:
    table = {
        **_norm(("attention_norm",), prefix + names.attention_norm),
        **_norm(("ffw_norm",), prefix + names.ffw_norm),
        **_linear(("up",), prefix + names.up),
        **_linear(("down",), prefix + names.down),
        **_linear(("attention", "out"), prefix + names.out),
    }
    kernel = table["attention", "out", "kernel"]
    table["attention", "out", "kernel"] = kernel._replace(convert=lambda a: a.T.reshape(*heads, -1))
    parts = 3 // len(names.qkv_weights)
    for i, name in enumerate(("query", "key", "value")):
        file, part = divmod(i, parts)
        for leaf, sources, shape in (
            ("kernel", names.qkv_weights, (-1, *heads)),
            ("bias", names.qkv_biases, heads),
        ):
            source = Source(prefix + sources[file], _split(part, parts, shape))
            table["attention", name, leaf] = source
    return table


def _split(part: int, parts: int, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """Takes one of `parts` equal parts of the rows, transposed and with the heads apart."""
    return lambda a: np.split(a, parts)[part].T.reshape(shape)


def _norm(path: Path, name: str) -> dict[Path, Source]:
    return {
        (*path, "scale"): Source(f"{name}.weight", lambda a: a),
        (*path, "bias"): Source(f"{name}.bias", lambda a: a),
    }


def _linear(path: Path, name: str) -> dict[Path, Source]:
    return {
        (*path, "kernel"): Source(f"{name}.weight", lambda a: a.T),
        (*path, "bias"): Source(f"{name}.bias", lambda a: a),
    }
