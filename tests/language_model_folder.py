"""The tokenizer of a language model's folder, as transformers saves it: one token a byte."""

import pathlib

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

SEPARATOR = 256  # <|endoftext|>, bos and eos; nothing pads
NUM_IDS = 257


def write_tokenizer(folder: pathlib.Path) -> None:
    """`tokenizer.json`, with ids 0 to 255 in the order of byte-level BPE's characters."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
