"""Text to token ids and back, with the two tokens that Flamingo adds.

Paper, section 2.4 and appendix A.1.4: the frozen language model's own vocabulary plus `<EOC>`,
written after each chunk of text, and a mark for the place of an image. They are new rows behind the
frozen ones: `image_id = base_vocab_size`, `end_of_chunk_id = base_vocab_size + 1`. Published models
have theirs in another order, and more of them: `with_conventions`.

A special token is only ever an *id* that the program puts there: "<|endoftext|>" or "<image>"
inside a web page stays ordinary text. What splits it is in `tokenizer_models.py`; published
vocabularies are read in `published_vocabulary.py` and `gguf_vocabulary.py`.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from flamingo_jax import gguf_vocabulary, published_vocabulary
from flamingo_jax.tokenizer_models import (
    BYTE_PAIRS_FILE,
    SENTENCEPIECE_FILE,
    BytePairs,
    Model,
    SentencePiece,
    byte_characters,
    byte_pairs,
)

_SPECIALS_FILE = "special_tokens.json"

IMAGE, END_OF_CHUNK = "<image>", "<EOC>"
AROUND_IMAGE = "<fake_token_around_image>"  # IDEFICS's
NEW_TOKENS = (IMAGE, END_OF_CHUNK)


class Tokenizer:
    """A vocabulary with its special ids. Immutable; may be pickled into worker processes."""

    def __init__(
        self,
        model: Model,
        *,
        base_vocab_size: int,
        bos_id: int,
        eos_id: int,
        pad_id: int,
        control_tokens: Mapping[int, str],
        new_tokens: Sequence[str] = NEW_TOKENS,
        starts_with_bos: bool = True,
    ):
        """`control_tokens`: names of the ids that stand for no text, the three special ones too.

        `new_tokens`: names of the rows behind the frozen ones, in their order. Without one called
        `<EOC>` a chunk ends with eos; one called `<fake_token_around_image>` stands around images.
        `starts_with_bos`: whether a prompt does.
        """
        for name, value in {"bos_id": bos_id, "eos_id": eos_id, "pad_id": pad_id}.items():
            if not 0 <= value < base_vocab_size:
                raise ValueError(f"{name}={value} is not in the vocabulary of {base_vocab_size}")
        self.new_tokens = tuple(new_tokens)
        if IMAGE not in self.new_tokens or len({*self.new_tokens}) < len(self.new_tokens):
            raise ValueError(f"new_tokens={list(new_tokens)}: want {IMAGE} once, and others once")
        self._model = model
        self.base_vocab_size = base_vocab_size  # rows of the frozen embedding
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.pad_id = pad_id
        self.starts_with_bos = starts_with_bos
        new_ids = {name: base_vocab_size + i for i, name in enumerate(self.new_tokens)}
        self.image_id = new_ids[IMAGE]
        self.end_of_chunk_id = new_ids.get(END_OF_CHUNK, eos_id)
        self.around_image_id = new_ids.get(AROUND_IMAGE)
        self.vocab_size = base_vocab_size + len(new_ids)
        self._names = {**control_tokens, **{i: name for name, i in new_ids.items()}}

    @property
    def prefix(self) -> list[int]:
        """What every prompt and every document begins with: bos, or nothing."""
        return [self.bos_id] if self.starts_with_bos else []

    @property
    def chunk_end(self) -> list[int]:
        """What closes a chunk inside a document: `<EOC>` or nothing, as eos would close it all."""
        return [self.end_of_chunk_id] if END_OF_CHUNK in self.new_tokens else []

    def image_tag(self, before: Sequence[int]) -> list[int]:
        """The tokens of an image behind those `before`; two images share what is between them."""
        around = self.around_image_id
        if around is None:
            return [self.image_id]
        return [around] * (not before or before[-1] != around) + [self.image_id, around]

    @property
    def never_written(self) -> set[int]:
        """Ids that no continuation may hold: padding, and new tokens but `<EOC>`."""
        new = {*range(self.base_vocab_size, self.vocab_size)} - {self.end_of_chunk_id}
        return (new | {self.pad_id}) - {self.eos_id}

    def with_conventions(self, new_tokens: Sequence[str], *, starts_with_bos: bool) -> "Tokenizer":
        """The same vocabulary with another model's new tokens, and with or without bos."""
        control = {i: n for i, n in self._names.items() if i < self.base_vocab_size}
        return Tokenizer(
            self._model,
            base_vocab_size=self.base_vocab_size,
            bos_id=self.bos_id,
            eos_id=self.eos_id,
            pad_id=self.pad_id,
            control_tokens=control,
            new_tokens=new_tokens,
            starts_with_bos=starts_with_bos,
        )

    def check_rows(self, frozen: int, new: int) -> None:
        """ValueError unless a model's embedding has as many rows, or <EOC> would be another's."""
        own, added = self.base_vocab_size, len(self.new_tokens)
        if (frozen, new) != (own, added):
            raise ValueError(
                f"the tokenizer has {own} ids and {added} new ones, the model rows for {frozen} "
                f"and {new}: set language_model.vocab_size={own} and num_new_tokens={added}"
            )

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; nothing is added, and no special id is ever among them."""
        return self._model.encode(text)

    def encode_behind(self, before: str, text: str) -> list[int]:
        """Ids of `text` as it goes on from `before`, whose own ids do not change.

        Sentencepiece models mostly put a space before what they are given, and so one too many in
        the middle of a text. Where the two meet inside of a token it is split apart from `before`.
        """
        whole, first = self.encode(before + text), self.encode(before)
        return whole[len(first) :] if whole[: len(first)] == first else self.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special ids stand for none. ValueError for an id outside vocab_size.

        Bytes that are no UTF-8, as when a character is cut in two, come back as U+FFFD.
        """
        return self._model.decode([i for i in map(self._checked, ids) if i not in self._names])

    def token_text(self, token: int) -> str:
        """One token for people to read: a special one by its name, any other as its text."""
        return self._names.get(self._checked(token)) or self._model.decode([int(token)])

    def to_file(self, directory: str | pathlib.Path) -> None:
        """Writes the vocabulary and, beside it, the special ids."""
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._model.save(directory)
        specials = {
            "base_vocab_size": self.base_vocab_size,
            "bos_id": self.bos_id,
            "eos_id": self.eos_id,
            "pad_id": self.pad_id,
            "control_tokens": {
                str(i): n for i, n in self._names.items() if i < self.base_vocab_size
            },
        }
        if self.new_tokens != NEW_TOKENS:
            specials["new_tokens"] = self.new_tokens
        if not self.starts_with_bos:
            specials["starts_with_bos"] = False
        (directory / _SPECIALS_FILE).write_text(json.dumps(specials, indent=2, ensure_ascii=False))

    @classmethod
    def from_file(cls, directory: str | pathlib.Path) -> "Tokenizer":
        """What `to_file` wrote. ValueError where the folder holds no tokenizer of ours."""
        directory = pathlib.Path(directory)
        try:
            specials = json.loads((directory / _SPECIALS_FILE).read_text())
            specials["control_tokens"] = {
                int(i): name for i, name in specials["control_tokens"].items()
            }
            if (directory / SENTENCEPIECE_FILE).exists():
                model: Model = SentencePiece((directory / SENTENCEPIECE_FILE).read_bytes())
            else:
                model = BytePairs(tokenizers.Tokenizer.from_file(str(directory / BYTE_PAIRS_FILE)))
            return cls(model, **specials)
        except Exception as error:  # `tokenizers` raises bare Exception
            raise ValueError(
                f"{directory}: no tokenizer can be read there ({error}): want {_SPECIALS_FILE} "
                f"beside {BYTE_PAIRS_FILE} or {SENTENCEPIECE_FILE}, as Tokenizer.to_file writes "
                "them"
            ) from error

    @classmethod
    def byte_level(cls, base_vocab_size: int = 259) -> "Tokenizer":
        """One token a byte, ids 0 to 255, then bos, eos and pad; needs no download.

        Ids from 259 on, where there are any, stand for no text.
        """
        vocabulary = {char: byte for byte, char in enumerate(byte_characters())}
        return cls(
            byte_pairs(vocabulary, [], [pre_tokenizers.ByteLevel(False, use_regex=False)]),
            base_vocab_size=base_vocab_size,
            bos_id=256,
            eos_id=257,
            pad_id=258,
            control_tokens={256: "<bos>", 257: "<eos>", 258: "<pad>"},
        )

    @classmethod
    def from_huggingface(
        cls,
        directory: str | pathlib.Path,
        base_vocab_size: int | None = None,
        *,
        new_are_there: bool = False,
    ) -> "Tokenizer":
        """From a checkpoint folder of transformers: `tokenizer.json`, or else `tokenizer.model`.

        As transformers does: the first has tokens that were added later, such as Phi-3's `<|end|>`.
        OPT's folders have neither, but `vocab.json` and `merges.txt`, as GPT-2's tokenizer saves.

        `new_are_there`: ids from `base_vocab_size` on are special tokens that a Flamingo was given.

        `base_vocab_size` is the number of the model's embedding rows, where it has more than the
        tokenizer (MPT, Pythia). Of a `tokenizer.json` the special tokens become ids that no text
        gives; the document separator, where there is one, is eos, and bos too unless the folder
        names it as its eos beside another bos.
        """
        found = published_vocabulary.of_huggingface(directory, base_vocab_size, new_are_there)
        return cls(**found._asdict())

    @classmethod
    def from_gguf(
        cls, fields: Mapping[str, Any], folder: pathlib.Path | None = None
    ) -> "Tokenizer":
        """From the metadata of a GGUF file: sentencepiece, and byte-level BPE of many kinds.

        Of other kinds the `tokenizer.json` in `folder`, the file's, is read, if it has the same
        tokens. The document separator is bos and eos as in `from_huggingface`. Bytes that the
        vocabulary lacks (some control characters in SmolLM2's) are left out.

        Raises ValueError for other kinds of tokenizer and for metadata that lack a field.
        """
        return cls(**gguf_vocabulary.of_gguf(fields, folder)._asdict())

    @classmethod
    def from_sentencepiece(
        cls, path: str | pathlib.Path, base_vocab_size: int | None = None
    ) -> "Tokenizer":
        """From a sentencepiece `.model` file; padding is eos where the model has none.

        Such models mostly put a space before every text they encode, and `decode` takes it away.
        """
        return cls(**published_vocabulary.of_sentencepiece(path, base_vocab_size)._asdict())

    def _checked(self, token: int) -> int:
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"token id {token} is outside the vocabulary of {self.vocab_size}")
        return int(token)
