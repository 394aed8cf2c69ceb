"""Vocabularies of published models, as their files have them, with the special ids.

Two kinds of file: transformers' folders and sentencepiece models; GGUF's metadata are read in
`gguf_vocabulary.py`. `Tokenizer` has a constructor for each, which says what is taken from where.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import tokenizers

from flamingo_jax.tokenizer_models import (
    BYTE_PAIRS_FILE,
    SENTENCEPIECE_FILE,
    BytePairs,
    Model,
    SentencePiece,
)

# Base models part documents with this token and have seen nothing else around plain text; files of
# chat-tuned ones name their turn marks as bos and eos instead. Where it is the eos that they name
# their bos is believed too: Phi-3's is another.
DOCUMENT_SEPARATOR = "<|endoftext|>"
_GPT2, _GPT2_FILES = "GPT2Tokenizer", ("vocab.json", "merges.txt")


class Vocabulary(NamedTuple):
    """What a `Tokenizer` is made of, but for what a Flamingo adds."""

    model: Model
    base_vocab_size: int  # rows of the frozen embedding
    bos_id: int
    eos_id: int
    pad_id: int
    control_tokens: Mapping[int, str]  # names of the ids that stand for no text, those three too


def of_huggingface(
    directory: str | pathlib.Path, base_vocab_size: int | None, new_are_there: bool
) -> Vocabulary:
    """For `Tokenizer.from_huggingface`."""
    directory = pathlib.Path(directory)
    pieces = directory / SENTENCEPIECE_FILE
    if pieces.is_file() and not (directory / BYTE_PAIRS_FILE).is_file():
        return of_sentencepiece(pieces, base_vocab_size)
    try:
        names = _special_names(directory)
        values = _tokenizer_json(directory, names)
        added = values.get("added_tokens") or []
        if base_vocab_size is not None:
            added = [t for t in added if _has_row(t, base_vocab_size, new_are_there, names)]
        control = {token["id"]: token["content"] for token in added if token["special"]}
        model = tokenizers.Tokenizer.from_str(json.dumps(values | {"post_processor": None}))
    except Exception as error:  # `tokenizers` raises bare Exception
        raise ValueError(
            f"{directory}: no tokenizer can be read there ({error}): want {BYTE_PAIRS_FILE} or "
            f"{SENTENCEPIECE_FILE}, as transformers saves them, or {' and '.join(_GPT2_FILES)} of "
            "GPT-2's kind"
        ) from error
    for token in added:
        if (found := model.token_to_id(token["content"])) != token["id"]:
            raise ValueError(
                f"{directory / BYTE_PAIRS_FILE}: added token {token['content']!r} has id "
                f"{token['id']}, `tokenizers` gives it {found}: number the added tokens of "
                "that file from the vocabulary's end on, in order and without gaps"
            )
    by_name = {name: i for i, name in control.items()}
    separator = by_name.get(DOCUMENT_SEPARATOR)
    if separator is None and pieces.is_file() and not {"bos_token", "eos_token"} <= names.keys():
        own = of_sentencepiece(pieces, None)
        named = {"bos_token": own.bos_id, "eos_token": own.eos_id}
        names = {name: own.control_tokens[i] for name, i in named.items()} | names
    bos, eos = (by_name.get(names.get(n), separator) for n in ("bos_token", "eos_token"))
    if eos != separator is not None:
        bos = eos = separator
    if bos is None or eos is None:
        raise ValueError(f"{directory}: no bos or no eos among {sorted(by_name)}")
    size = max([*model.get_vocab(False).values(), *(token["id"] for token in added)]) + 1
    return Vocabulary(
        BytePairs(model),
        base_vocab_size=_rows(directory / BYTE_PAIRS_FILE, size, base_vocab_size),
        bos_id=bos,
        eos_id=eos,
        pad_id=by_name.get(names.get("pad_token"), eos),
        control_tokens=control,
    )


def _tokenizer_json(directory: pathlib.Path, names: Mapping[str, str]) -> dict[str, Any]:
    """`tokenizer.json`; where there is none what it would be of GPT-2's two files, as OPT's are."""
    file, vocabulary = directory / BYTE_PAIRS_FILE, directory / _GPT2_FILES[0]
    if file.is_file() or not vocabulary.is_file():
        return json.loads(file.read_text("utf-8"))
    config = _json_object(directory / "tokenizer_config.json")
    if (kind := config.get("tokenizer_class") or _GPT2).removesuffix("Fast") != _GPT2:
        raise ValueError(f"{vocabulary.name} is of {kind}: fetch {BYTE_PAIRS_FILE} too")
    ids = json.loads(vocabulary.read_text("utf-8"))
    merges = (directory / _GPT2_FILES[1]).read_text("utf-8").split("\n")
    merges = [line for line in merges if line and not line.startswith("#version")]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    special = sorted({*names.values()} & ids.keys(), key=ids.get)
    before = {"add_prefix_space": config.get("add_prefix_space") or False, "trim_offsets": True}
    return {
        "added_tokens": [{"id": ids[n], "content": n, "special": True} | flags for n in special],
        "model": {"type": "BPE", "vocab": ids, "merges": merges},
        "pre_tokenizer": {"type": "ByteLevel"} | before,
        "decoder": {"type": "ByteLevel"} | before,
    }


def _has_row(
    token: Mapping[str, Any], num_rows: int, new_are_there: bool, names: Mapping[str, str]
) -> bool:
    """False for an added token that no text gives and no row of the embedding is for.

    Gemma 3 of 1B has one, for its bigger kin's pictures.
    """
    unused = token["special"] and token["content"] not in names.values()
    return token["id"] < num_rows or not (new_are_there or unused)


def of_sentencepiece(path: str | pathlib.Path, base_vocab_size: int | None) -> Vocabulary:
    """For `Tokenizer.from_sentencepiece`."""
    try:
        model = SentencePiece(pathlib.Path(path).read_bytes())
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: not a sentencepiece model ({error})") from error
    pieces = model.processor
    if pieces.bos_id() < 0 or pieces.eos_id() < 0:
        raise ValueError(f"{path}: this sentencepiece model has no bos or no eos token")
    size = pieces.get_piece_size()
    return Vocabulary(
        model,
        base_vocab_size=_rows(path, size, base_vocab_size),
        bos_id=pieces.bos_id(),
        eos_id=pieces.eos_id(),
        pad_id=pieces.pad_id() if pieces.pad_id() >= 0 else pieces.eos_id(),
        control_tokens={i: pieces.id_to_piece(i) for i in range(size) if pieces.is_control(i)},
    )


def _rows(path: str | pathlib.Path, num_ids: int, asked: int | None) -> int:
    """`asked` rows of the embedding, or as many as ids; ValueError where an id would be <image>."""
    if asked is not None and asked < num_ids:
        raise ValueError(
            f"{path}: ids go up to {num_ids - 1}, and the model's embedding has {asked} rows, "
            "behind which are <image> and <EOC>: name the tokenizer it was trained with, or set "
            "model.language_model.vocab_size to all its rows"
        )
    return num_ids if asked is None else asked


def _special_names(directory: pathlib.Path) -> dict[str, str]:
    """`bos_token`, `eos_token`, `pad_token` where they are named, those that are."""
    found = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):  # the last one counts
        values = _json_object(directory / file)
        for name in ("bos_token", "eos_token", "pad_token"):
            if value := values.get(name):
                found[name] = value["content"] if isinstance(value, dict) else value
    return found


def _json_object(path: pathlib.Path) -> dict[str, Any]:
    """What a file says; nothing where there is none."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
