"""IDEFICS v1, a folder of transformers -> the config and the trained parts of a Flamingo here.

The folder holds everything; the language model and the image tower are read from it as the frozen
parts that they were (of the instruct models, whose language model was trained on too, as well).
Not the paper's in what is computed: gated blocks as the language model's own are made, before
blocks 0, `cross_layer_interval` and so on; ReLU in the resampler, and norms of each head's queries
and keys in both; CLIP's class token beside its patches; extra rows of embedding and head.
"""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

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
from flamingo_jax.tokenizer import END_OF_CHUNK
from flamingo_jax.weights import name_table
from flamingo_jax.weights.encoders import clip_config, clip_tower
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files, json_settings
from flamingo_jax.weights.files.json_settings import JsonSettings
from flamingo_jax.weights.flamingos import idefics_names
from flamingo_jax.weights.flamingos.conversion import Conversion
from flamingo_jax.weights.language_models import hf_lm, hf_lm_config, hf_lm_names

CAPTION = "Output: {}"  # ours
_OUR_NAMES = {"<end_of_utterance>": END_OF_CHUNK}
_BUFFERS = (".rotary_emb.inv_freq", ".embeddings.position_ids")
_MEND = "fetch the folder again, or give one of IDEFICS v1"


class Structure(NamedTuple):
    """What a folder says of itself, in our terms."""

    config: FlamingoConfig
    new_tokens: tuple[str, ...]  # the tokenizer's, in the rows' order


def convert(folder: pathlib.Path) -> Conversion:
    """BadWeightsFile for what is missing, left over, or set otherwise than IDEFICS is.

    Of the frozen parts only the tables are read, where the files are of safetensors.
    """
    tensors = checkpoint_files.tensors(folder)
    beside = hf_lm_names.NAMES["idefics"].beside
    trained = {name: a for name, a in tensors.items() if name.startswith(beside[1:])}
    buffers = [name for name in tensors if name.endswith(_BUFFERS)]
    left = {name: a for name, a in trained.items() if name not in buffers}
    config, new_tokens = structure(folder, tensors)
    lm = config.language_model
    hf_lm.language_model(tensors, "idefics", lm, what=str(folder))  # checks names and shapes
    shapes = params_lib.abstract(lambda rngs: Flamingo(config, Execution(), rngs=rngs))[1]
    wanted = {name: shapes[name] for name in ("resampler", "gated_xattn", "new_tokens")}
    table = idefics_names.table(config)
    params = name_table.take(left, table, wanted, what=str(folder), mend=_MEND)
    gated = sum(name.startswith(beside[2]) for name in left)
    resampler = sum(name.startswith(beside[1]) for name in left)
    blocks = lm.num_layers // config.cross_attention.every
    return Conversion(
        config,
        params,
        new_tokens,
        starts_with_bos=True,
        caption_template=CAPTION,
        mapped={
            "resampler": resampler,
            f"{blocks} gated blocks": gated,
            "tables of new tokens' rows": len(left) - gated - resampler,
        },
        unneeded=len(buffers),
    )


def structure(folder: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> Structure:
    """BadWeightsFile for what is set otherwise than IDEFICS is; of `tensors` shapes are asked."""
    num_new = read_json(folder).whole("additional_vocab_size", 0)
    _, lm = hf_lm_config.read_folder(folder)
    names = _new_tokens(folder, lm.vocab_size, num_new)
    tower = clip_tower.recognise(folder)
    vision = tower.config({"fit": "stretch"}, keep_class_token=True, activation="gelu")
    clip_config.check(folder, tower.format, vision)
    return Structure(
        _config(folder, tensors, lm, vision, num_new),
        tuple(_OUR_NAMES.get(name, name) for name in names),
    )


def read_json(folder: pathlib.Path) -> JsonSettings:
    """`config.json`; BadWeightsFile for a folder of something else."""
    found = json_settings.read(folder / checkpoint_files.CONFIG)
    if (kind := found.values.get("model_type")) != "idefics":
        raise BadWeightsFile(
            f"{folder} is of model_type={kind!r}: give a folder of IDEFICS v1, whose is 'idefics'"
        )
    return found


def _new_tokens(folder: pathlib.Path, first: int, count: int) -> list[str]:
    """Names of the ids from `first` on, as the folder's tokenizer has them."""
    names = _added_tokens(folder)
    missing = next((i for i in range(first, first + count) if i not in names), None)
    if missing is not None:
        raise BadWeightsFile(
            f"{folder}: the tokenizer names no token {missing}, and the model has rows for "
            f"{first} to {first + count - 1}: fetch tokenizer.json or added_tokens.json again"
        )
    return [names[i] for i in range(first, first + count)]


def _added_tokens(folder: pathlib.Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for file, read in (
        ("added_tokens.json", lambda v: {i: name for name, i in v.items()}),
        ("tokenizer.json", lambda v: {t["id"]: t["content"] for t in v.get("added_tokens") or []}),
    ):
        path = folder / file
        try:
            names |= read(checkpoint_files.json_object(path)) if path.is_file() else {}
        except (KeyError, TypeError) as error:
            raise BadWeightsFile(f"{path} is damaged ({error}): fetch it again") from error
    return names


def _config(
    folder: pathlib.Path,
    tensors: Mapping[str, np.ndarray],
    lm: LanguageModelConfig,
    vision: VisionConfig,
    num_new: int,
) -> FlamingoConfig:
    hf = read_json(folder)
    perceiver = hf.section("perceiver_config")
    for key, want in {"use_resampler": True, "tie_word_embeddings": False}.items():
        if (found := hf.flag(key, False)) != want:
            raise BadWeightsFile(
                f"{folder}: config.json has {key}={found}, only {want} is supported"
            )
    every = hf.whole("cross_layer_interval", 1)
    if lm.num_layers % every:
        raise BadWeightsFile(
            f"{folder}: config.json has cross_layer_interval={every}, which does not divide "
            f"num_hidden_layers={lm.num_layers}"
        )
    gate = tensors.get(idefics_names.GATE.format(0))
    return FlamingoConfig(
        language_model=lm,
        vision=vision,
        resampler=ResamplerConfig(
            num_latents=perceiver.whole("resampler_n_latents", 64),
            depth=perceiver.whole("resampler_depth", 6),
            width=vision.width,
            num_heads=perceiver.whole("resampler_n_heads", 16),
            head_dim=perceiver.whole("resampler_head_dim", 96),
            activation="relu",
            num_frames=0,
            qk_norm=perceiver.flag("qk_layer_norms_perceiver", False),
        ),
        cross_attention=CrossAttentionConfig(
            every=every,
            num_heads=lm.num_heads,
            head_dim=lm.head_dim,
            activation=lm.activation,
            normalize_media=False,
            norm="rmsnorm",
            norm_eps=lm.norm_eps,
            qk_norm=hf.flag("qk_layer_norms", False),
            gated_ffw=True,
            ffw_width=lm.ffw_width,
            gate_per_channel=gate is not None and gate.size > 1,
        ),
        num_new_tokens=num_new,
    )
