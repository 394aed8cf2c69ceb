"""A published language model by itself: what it is, its weights and its tokenizer."""

import pathlib
from typing import NamedTuple

from flamingo_jax.config import LanguageModelConfig
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files, gguf_file
from flamingo_jax.weights.language_models import (
    gguf,
    gguf_config,
    gguf_rope,
    hf_lm,
    hf_lm_config,
)
from flamingo_jax.weights.name_table import Tree

FORMATS = ("hf_lm", "gguf")


class PublishedLM(NamedTuple):
    """A language model in our terms, its layers still in their file."""

    config: LanguageModelConfig
    params: Tree  # of one segment, layers stacked, in the file's dtype
    tokenizer: Tokenizer
    mapped: int  # tensors of the file that it is made of
    unneeded: dict[str, int]  # tensors that it can do without, by what they are; 0: there are none


def read(kind: str, path: pathlib.Path) -> PublishedLM:
    """The model in a folder of transformers (hf_lm) or a GGUF file (gguf).

    Raises BadWeightsFile where it is damaged or of another kind, or has a tensor that is missing,
    left over or not finite, the last when it is read; ValueError where it has no tokenizer.
    """
    return _hf_lm(path) if kind == "hf_lm" else _gguf(path)


def _hf_lm(path: pathlib.Path) -> PublishedLM:
    family, config = hf_lm_config.read_folder(path)
    tokenizer = Tokenizer.from_huggingface(path, config.vocab_size)
    tensors = checkpoint_files.tensors(path)
    unneeded = hf_lm.unneeded(tensors.keys(), family, config)
    params = hf_lm.language_model(tensors, family, config, what=str(path))
    return PublishedLM(config, params, tokenizer, len(tensors) - sum(unneeded.values()), unneeded)


def _gguf(path: pathlib.Path) -> PublishedLM:
    file = gguf_file.read(path)
    config = gguf_config.read(file)
    tokenizer = Tokenizer.from_gguf(file.metadata, path.parent)
    if tokenizer.base_vocab_size != config.vocab_size:
        raise BadWeightsFile(
            f"{path} has {tokenizer.base_vocab_size} tokens and {config.vocab_size} rows for them: "
            "use a file where they are as many"
        )
    unneeded = {hf_lm.TIED_HEAD: int("output.weight" in file)} if config.tied_head else {}
    if gguf_rope.FACTORS in file and config.rope_scaling is None:
        unneeded["rotary factors, which are 1"] = 1
    num_tensors = len(file.names()) - sum(unneeded.values())
    return PublishedLM(config, gguf.language_model(file, config), tokenizer, num_tensors, unneeded)
