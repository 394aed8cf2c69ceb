"""Text to token ids and back, with the two tokens that Flamingo adds.

Paper, section 2.4 and appendix A.1.4: the frozen language model's own vocabulary plus `<EOC>`,
written after each chunk of text, and a mark for the place of an image. They are new rows behind the
frozen ones: `image_id = base_vocab_size`, `end_of_chunk_id = base_vocab_size + 1`. Published models
have theirs in another order, and more of them: `with_conventions`.

Two libraries do the splitting: `tokenizers` for byte-level BPE and `sentencepiece` for its own
models. Differs from their usual front ends in that a special token is only ever an *id* the program
puts there: "<|endoftext|>" or "<image>" inside a web page stays ordinary text.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

_FILE = "tokenizer.json"
_SENTENCEPIECE_FILE = "tokenizer.model"
_SPECIALS_FILE = "special_tokens.json"

IMAGE, END_OF_CHUNK = "<image>", "<EOC>"
AROUND_IMAGE = "<fake_token_around_image>"  # IDEFICS's
NEW_TOKENS = (IMAGE, END_OF_CHUNK)

_CONTROL = 3  # GGUF token type of special tokens
# Base models part documents with this token and have seen nothing else around plain text; files of
# chat-tuned ones name their turn marks as bos and eos instead.
_DOCUMENT_SEPARATOR = "<|endoftext|>"


class _Model(Protocol):
    """What the two libraries have in common."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: list[int]) -> str: ...
    def save(self, directory: pathlib.Path) -> None: ...


class Tokenizer:
    """A vocabulary with its special ids. Immutable; may be pickled into worker processes."""

    def __init__(
        self,
        model: _Model,
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
            if (directory / _SENTENCEPIECE_FILE).exists():
                model: _Model = _SentencePiece(directory / _SENTENCEPIECE_FILE)
            else:
                model = _BytePairs(tokenizers.Tokenizer.from_file(str(directory / _FILE)))
            return cls(model, **specials)
        except Exception as error:  # `tokenizers` raises bare Exception
            raise ValueError(
                f"{directory}: no tokenizer can be read there ({error}): want {_SPECIALS_FILE} "
                f"beside {_FILE} or {_SENTENCEPIECE_FILE}, as Tokenizer.to_file writes them"
            ) from error

    @classmethod
    def byte_level(cls, base_vocab_size: int = 259) -> "Tokenizer":
        """One token a byte, ids 0 to 255, then bos, eos and pad; needs no download.

        Ids from 259 on, where there are any, stand for no text.
        """
        vocabulary = {char: byte for byte, char in enumerate(_byte_characters())}
        return cls(
            _byte_pairs(vocabulary, [], [pre_tokenizers.ByteLevel(False, use_regex=False)]),
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
        """From a checkpoint folder of transformers: `tokenizer.model`, or else `tokenizer.json`.

        `new_are_there`: ids from `base_vocab_size` on are special tokens that a Flamingo was given.

        `base_vocab_size` is the number of the model's embedding rows, where it has more than the
        tokenizer (MPT, Pythia). Of a `tokenizer.json` the special tokens become ids that no text
        gives; the document separator, where there is one, is both bos and eos.
        """
        directory = pathlib.Path(directory)
        if (directory / _SENTENCEPIECE_FILE).is_file():
            return cls.from_sentencepiece(directory / _SENTENCEPIECE_FILE, base_vocab_size)
        try:
            values = json.loads((directory / _FILE).read_text("utf-8"))
            added = values.get("added_tokens") or []
            if new_are_there:
                added = [token for token in added if token["id"] < base_vocab_size]
            control = {token["id"]: token["content"] for token in added if token["special"]}
            model = tokenizers.Tokenizer.from_str(json.dumps(values | {"post_processor": None}))
            names = _special_names(directory)
        except Exception as error:  # `tokenizers` raises bare Exception
            raise ValueError(
                f"{directory}: no tokenizer can be read there ({error}): want {_FILE} or "
                f"{_SENTENCEPIECE_FILE}, as transformers saves them"
            ) from error
        for token in added:
            if (found := model.token_to_id(token["content"])) != token["id"]:
                raise ValueError(
                    f"{directory / _FILE}: added token {token['content']!r} has id {token['id']}, "
                    f"`tokenizers` gives it {found}: number the added tokens of that file from the "
                    f"vocabulary's end on, in order and without gaps"
                )
        by_name = {name: i for i, name in control.items()}
        separator = by_name.get(_DOCUMENT_SEPARATOR)
        bos, eos = (by_name.get(names.get(n), separator) for n in ("bos_token", "eos_token"))
        if separator is not None:
            bos = eos = separator
        if bos is None or eos is None:
            raise ValueError(f"{directory}: no bos or no eos among {sorted(by_name)}")
        size = max([*model.get_vocab(not new_are_there).values(), *control]) + 1
        return cls(
            _BytePairs(model),
            base_vocab_size=_rows(directory / _FILE, size, base_vocab_size),
            bos_id=bos,
            eos_id=eos,
            pad_id=by_name.get(names.get("pad_token"), eos),
            control_tokens=control,
        )

    @classmethod
    def from_gguf(cls, fields: Mapping[str, Any]) -> "Tokenizer":
        """From the metadata of a GGUF file: byte-level BPE as in SmolLM2 and GPT-2.

        The base model's document separator, where the vocabulary has it, is both bos and eos.
        Bytes that the vocabulary lacks (some control characters in SmolLM2's) are left out.

        Raises ValueError for other kinds of tokenizer and for metadata that lack a field.
        """
        kind = (fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre"))
        if kind not in _PRE_TOKENIZERS:
            raise ValueError(
                f"GGUF tokenizer {kind[0]!r} with pre-tokenizer {kind[1]!r} is not supported: use "
                f"a file with one of {sorted(_PRE_TOKENIZERS)}, or a sentencepiece model"
            )
        tokens, merges, types = (
            _field(fields, f"tokenizer.ggml.{name}") for name in ("tokens", "merges", "token_type")
        )
        if len(types) != len(tokens):
            raise ValueError(f"GGUF has {len(types)} token types for {len(tokens)} tokens")
        control = {i: tokens[i] for i, kind in enumerate(types) if kind == _CONTROL}
        ids = {
            name: fields.get(f"tokenizer.ggml.{source}_token_id")
            for name, source in {"bos_id": "bos", "eos_id": "eos", "pad_id": "padding"}.items()
        }
        for i, token in control.items():
            if token == _DOCUMENT_SEPARATOR:
                ids["bos_id"] = ids["eos_id"] = i
        if ids["pad_id"] is None:
            ids["pad_id"] = ids["eos_id"]
        if None in ids.values():
            raise ValueError("GGUF metadata name no bos or eos token, and none is <|endoftext|>")
        return cls(
            _byte_pairs(
                {token: i for i, token in enumerate(tokens)},
                [tuple(merge.split(" ")) for merge in merges],
                _PRE_TOKENIZERS[kind],
            ),
            base_vocab_size=len(tokens),
            control_tokens=control | {i: tokens[i] for i in ids.values() if i < len(tokens)},
            **ids,
        )

    @classmethod
    def from_sentencepiece(
        cls, path: str | pathlib.Path, base_vocab_size: int | None = None
    ) -> "Tokenizer":
        """From a sentencepiece `.model` file; padding is eos where the model has none.

        Such models mostly put a space before every text they encode, and `decode` takes it away.
        """
        try:
            model = _SentencePiece(pathlib.Path(path))
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{path}: not a sentencepiece model ({error})") from error
        pieces = model.processor
        if pieces.bos_id() < 0 or pieces.eos_id() < 0:
            raise ValueError(f"{path}: this sentencepiece model has no bos or no eos token")
        size = pieces.get_piece_size()
        return cls(
            model,
            base_vocab_size=_rows(path, size, base_vocab_size),
            bos_id=pieces.bos_id(),
            eos_id=pieces.eos_id(),
            pad_id=pieces.pad_id() if pieces.pad_id() >= 0 else pieces.eos_id(),
            control_tokens={i: pieces.id_to_piece(i) for i in range(size) if pieces.is_control(i)},
        )

    def _checked(self, token: int) -> int:
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"token id {token} is outside the vocabulary of {self.vocab_size}")
        return int(token)


# What stands before the byte pairs, by GGUF's names of model and pre-tokenizer. "smollm" splits off
# every digit first, as the model was trained; the GGUF loader of `transformers` 5.23 leaves that
# out, so that its ids differ from ours where two or more spaces or newlines precede a digit.
_PRE_TOKENIZERS = {
    ("gpt2", "smollm"): [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ],
    ("gpt2", "gpt-2"): [pre_tokenizers.ByteLevel(add_prefix_space=False)],
}


class _BytePairs:
    """A model of `tokenizers` that takes nothing in a text for a special token."""

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True  # as the text they look like

    def __reduce__(self):  # that setting is in no file and no pickle of `tokenizers`
        return _BytePairs, (self._tokenizer,)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def save(self, directory: pathlib.Path) -> None:
        self._tokenizer.save(str(directory / _FILE))


class _SentencePiece:
    """A sentencepiece model, kept as the file's bytes for pickling and saving."""

    def __init__(self, path: pathlib.Path):
        self.processor = sentencepiece.SentencePieceProcessor(model_file=str(path))

    def encode(self, text: str) -> list[int]:
        return self.processor.encode(text, out_type=int)

    def decode(self, ids: list[int]) -> str:
        size = self.processor.get_piece_size()  # rows behind it only fill up the embedding
        return self.processor.decode([i for i in ids if i < size])

    def save(self, directory: pathlib.Path) -> None:
        (directory / _SENTENCEPIECE_FILE).write_bytes(self.processor.serialized_model_proto())


def _rows(path: str | pathlib.Path, num_ids: int, asked: int | None) -> int:
    """`asked` rows of the embedding, or as many as ids; ValueError where an id would be <image>."""
    if asked is not None and asked < num_ids:
        raise ValueError(
            f"{path}: ids go up to {num_ids - 1}, and the model's embedding has {asked} rows, "
            f"behind which are <image> and <EOC>: name the tokenizer it was trained with"
        )
    return num_ids if asked is None else asked


def _special_names(directory: pathlib.Path) -> dict[str, str]:
    """`bos_token`, `eos_token`, `pad_token` of tokenizer_config.json, those that it has."""
    path = directory / "tokenizer_config.json"
    values = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    named = {name: values.get(f"{name}_token") for name in ("bos", "eos", "pad")}
    return {
        f"{name}_token": value["content"] if isinstance(value, dict) else value
        for name, value in named.items()
        if value
    }


def _byte_pairs(
    vocabulary: dict[str, int],
    merges: list[tuple[str, ...]],
    before: list[pre_tokenizers.PreTokenizer],
) -> _BytePairs:
    try:
        tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except Exception as error:  # `tokenizers` raises bare Exception
        raise ValueError(f"vocabulary and merges do not make a tokenizer: {error}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(before)
    tokenizer.decoder = decoders.ByteLevel()
    return _BytePairs(tokenizer)


def _byte_characters() -> list[str]:
    """The printable character that byte-level BPE writes for each byte.

    Visible Latin-1 characters stand for themselves; the other 68 bytes take the code points from
    256 on, in order.
    """
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    return [chr(byte if byte in visible else next(hidden)) for byte in range(256)]


def _field(fields: Mapping[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    if not isinstance(value, list) or not value:
        raise ValueError(f"GGUF metadata lack {name}: the file holds no tokenizer")
    return value
