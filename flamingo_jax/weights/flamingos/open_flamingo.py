"""A checkpoint of OpenFlamingo v2 -> the config and the trained parts of a Flamingo here.

The file holds the resampler, the gated blocks and the language model's whole embedding table, two
or three rows of which are new; the language model and CLIP's ViT-L/14 are read from where they lie.
Not the paper's in what is computed: exact GELU, no norm on the media, no temporal embeddings, 8
heads of 64 in both parts, a gated block before every n-th block counted from the n-th, and features
before CLIP's last norm.
"""

import dataclasses
import pathlib

import numpy as np

from flamingo_jax.config import (
    CrossAttentionConfig,
    FlamingoConfig,
    LanguageModelConfig,
    ResamplerConfig,
    VisionConfig,
)
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.tokenizer import END_OF_CHUNK, IMAGE
from flamingo_jax.weights import finite, name_table
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.flamingos import frozen_copies, open_flamingo_names
from flamingo_jax.weights.flamingos.conversion import Conversion, Tree
from flamingo_jax.weights.flamingos.embedding_tables import EmbeddingTables
from flamingo_jax.weights.flamingos.open_flamingo_checkpoint import Checkpoint
from flamingo_jax.weights.language_models import hf_lm_names

# Appended in this order, <PAD> only where the tokenizer has no padding of its own.
NEW_TOKENS = (END_OF_CHUNK, IMAGE, "<PAD>")
CAPTION = "Output:{}"
HEADS = 8  # of both parts, in every OpenFlamingo
_WITH_BOS = ("llama", "opt")  # whose tokenizers write it before every text


def convert(
    checkpoint: Checkpoint,
    lm_path: pathlib.Path,
    family: str,  # `model_type` in the language model's config.json
    lm: LanguageModelConfig,  # of its whole table
    num_ids: int,  # of its tokenizer
    vision: VisionConfig,
) -> Conversion:
    """BadWeightsFile where file, language model and tower do not belong together."""
    inner = {
        name.removeprefix("lm."): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith("lm.")
    }
    tables = EmbeddingTables(checkpoint.path, inner, lm_path, family, lm)
    rows = len(tables.of_checkpoint("embedding"))
    num_new = rows - num_ids
    if num_new not in (2, 3) or num_ids > lm.vocab_size:
        raise BadWeightsFile(
            f"{checkpoint.path} has an embedding of {rows} rows, {lm_path} a tokenizer of {num_ids}"
            f" ids and {lm.vocab_size} rows: want 2 or 3 rows more than ids, and as many rows as "
            "ids or more, so give the language model that it was trained on"
        )
    config = _config(checkpoint, family, lm, num_ids, num_new, vision)
    compared = {name: tables.compare(name, num_ids) for name in tables.names}
    new = {
        name: np.array(tables.of_checkpoint(name)[num_ids:])
        for name in tables.names
        if name != "positions"
    }
    for name, rows_of_new in new.items():
        finite.check(f"{checkpoint.path}: new rows of the {name}", rows_of_new)
    if (more := len(new.get("head", new["embedding"]))) != num_new:
        raise BadWeightsFile(
            f"{checkpoint.path} has an embedding of {rows} rows and a head of {num_ids + more}: "
            "fetch the file again, or give one that OpenFlamingo wrote"
        )
    if tables.lacks_head:
        new["head"] = drawn_head(family, checkpoint.path, num_new, lm.width)
    tables.check_tied()
    buffers = {name for name in inner if name.endswith(hf_lm_names.NAMES[family].buffers)}
    frozen = {name: a for name, a in inner.items() if name not in tables.taken | buffers}
    repeated = frozen_copies.compare(checkpoint.path, frozen, lm_path, family)
    known = {f"lm.{name}" for name in tables.taken | buffers | repeated.keys()}
    left = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in known}
    trained = name_table.take(
        left,
        open_flamingo_names.table(config),
        _wanted(config),
        what=str(checkpoint.path),
        mend="fetch the file again, or give one that OpenFlamingo wrote",
    )
    return Conversion(
        config,
        trained | {"new_tokens": new},
        NEW_TOKENS[:num_new],
        family in _WITH_BOS,
        CAPTION,
        {
            "resampler": sum(name.startswith("perceiver.") for name in left),
            f"{len(checkpoint.gated)} gated blocks": sum(n.startswith("gated.") for n in left),
            "embedding tables": len(tables.taken),
        },
        unneeded=len(buffers) + checkpoint.num_copies,
        drawn=num_new * tables.lacks_head,
        repeated=len(repeated),
        rows_compared=sum(number for number, _ in compared.values()),
        max_difference=max([*repeated.values(), *(most for _, most in compared.values())]),
    )


def drawn_head(
    family: str, path: pathlib.Path, count: int, width: int
) -> np.ndarray:  # f32[count, D]
    """Rows of the new tokens for a head that OpenFlamingo's filter has left out of a file.

    It keeps tensors by "embed" in their names, so LLaMA's frozen `lm_head` is lost, and whoever
    loads the file there gets new rows, normal of deviation 0.02, every time others.
    """
    name = open_flamingo_names.FAMILIES[family].head or ""
    if "embed" in name:
        raise BadWeightsFile(
            f"{path} has no {name} of the language model, whose new rows are wanted: fetch the "
            "file again"
        )
    return np.random.default_rng(0).normal(0, 0.02, (count, width)).astype(np.float32)


def _config(
    checkpoint: Checkpoint,
    family: str,
    lm: LanguageModelConfig,
    num_ids: int,
    num_new: int,
    vision: VisionConfig,
) -> FlamingoConfig:
    where = checkpoint.gated
    every = where[0] + 1
    known = open_flamingo_names.FAMILIES.get(family)
    if known is None or checkpoint.layers not in ("", known.layers):
        raise BadWeightsFile(
            f"{checkpoint.path} was trained around layers called {checkpoint.layers}, the "
            f"language model is of the family {family}: give the one it was trained on"
        )
    if where != list(range(every - 1, lm.num_layers, every)) or checkpoint.width != lm.width:
        raise BadWeightsFile(
            f"{checkpoint.path} has gated blocks of width {checkpoint.width} before layers {where},"
            f" the language model {lm.num_layers} layers of width {lm.width}: give the one it was "
            "trained on"
        )
    num_latents, width = checkpoint.shape("perceiver.latents")
    if width != vision.width:
        raise BadWeightsFile(
            f"{checkpoint.path} reads features of width {width}, the image tower makes "
            f"{vision.width}: give the one it was trained on"
        )
    gated = f"gated.{where[0]}"
    depth = {n.split(".")[2] for n in checkpoint.tensors if n.startswith("perceiver.layers.")}

    def sizes(attention: str, feed_forward: str) -> dict[str, int]:
        hidden, inputs = checkpoint.shape(f"{feed_forward}.1.weight")
        return {
            "num_heads": HEADS,
            "head_dim": checkpoint.shape(f"{attention}.to_q.weight")[0] // HEADS,
            "ffw_multiplier": hidden // inputs,
        }

    return FlamingoConfig(
        language_model=dataclasses.replace(lm, vocab_size=num_ids),
        vision=vision,
        resampler=ResamplerConfig(
            num_latents=num_latents,
            depth=len(depth),
            width=width,
            activation="gelu",
            num_frames=0,
            **sizes("perceiver.layers.0.0", "perceiver.layers.0.1"),
        ),
        cross_attention=CrossAttentionConfig(
            every=every,
            offset=every - 1,
            activation="gelu",
            normalize_media=False,
            **sizes(f"{gated}.attn", f"{gated}.ff"),
        ),
        num_new_tokens=num_new,
    )


def _wanted(config: FlamingoConfig) -> Tree:
    """Shapes of the resampler and the gated blocks."""
    shapes = params_lib.abstract(lambda rngs: Flamingo(config, Execution(), rngs=rngs))[1]
    return {name: shapes[name] for name in ("resampler", "gated_xattn")}
