"""What splits a text and joins it again: byte-level BPE, and sentencepiece models.

Two libraries do it, `tokenizers` and `sentencepiece`. Differs from their usual front ends in that
nothing in a text is ever a special token.
"""

import pathlib
from collections.abc import Sequence
from typing import Protocol

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

BYTE_PAIRS_FILE = "tokenizer.json"
SENTENCEPIECE_FILE = "tokenizer.model"


class Model(Protocol):
    """What the two libraries have in common."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: list[int]) -> str: ...
    def save(self, directory: pathlib.Path) -> None: ...


class BytePairs:
    """A model of `tokenizers` that takes nothing in a text for a special token, and all of it."""

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True  # as the text they look like
        self._tokenizer.no_truncation()  # transformers saves the lengths it was last called with
        self._tokenizer.no_padding()

    def __reduce__(self):  # that setting is in no file and no pickle of `tokenizers`
        return BytePairs, (self._tokenizer,)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def vocabulary(self) -> dict[str, int]:
        """Ids of all tokens, added ones too."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    def save(self, directory: pathlib.Path) -> None:
        self._tokenizer.save(str(directory / BYTE_PAIRS_FILE))


class SentencePiece:
    """A sentencepiece model, kept as the file's bytes for pickling and saving."""

    def __init__(self, model: bytes):
        """RuntimeError where the bytes are none."""
        self.processor = sentencepiece.SentencePieceProcessor()
        self.processor.load_from_serialized_proto(model)

    def encode(self, text: str) -> list[int]:
        return self.processor.encode(text, out_type=int)

    def decode(self, ids: list[int]) -> str:
        size = self.processor.get_piece_size()  # rows behind it only fill up the embedding
        return self.processor.decode([i for i in ids if i < size])

    def save(self, directory: pathlib.Path) -> None:
        (directory / SENTENCEPIECE_FILE).write_bytes(self.processor.serialized_model_proto())


def byte_pairs(
    vocabulary: dict[str, int],
    merges: list[tuple[str, ...]],
    before: Sequence[pre_tokenizers.PreTokenizer],
    *,
    normalizer: normalizers.Normalizer | None = None,
    ignore_merges: bool = False,  # of words that the vocabulary has
    added: Sequence[str] = (),  # tokens that stay whole wherever a text has them
) -> BytePairs:
    """Byte-level BPE of a vocabulary; ValueError where merges and vocabulary do not fit."""
    try:
        model = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges)
        tokenizer = tokenizers.Tokenizer(model)
    except Exception as error:  # `tokenizers` raises bare Exception
        first, *_ = str(error).splitlines()  # of what it says of merges that are no pairs
        raise ValueError(f"vocabulary and merges do not make a tokenizer: {first}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(before)
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in added])
    return BytePairs(tokenizer)


def byte_characters() -> list[str]:
    """The printable character that byte-level BPE writes for each byte.

    Visible Latin-1 characters stand for themselves; the other 68 bytes take the code points from
    256 on, in order.
    """
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    return [chr(byte if byte in visible else next(hidden)) for byte in range(256)]
