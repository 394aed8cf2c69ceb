"""The vocabulary in a GGUF file's metadata, with its special ids.

Two kinds are read: sentencepiece's ("llama"), which becomes the model it once was, and byte-level
BPE ("gpt2"), of which the file has no more than a name for how texts are cut before. Of another
kind, or of one that the file tells too little of, the `tokenizer.json` beside the file is read.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tokenizers
from tokenizers import normalizers, pre_tokenizers

from flamingo_jax import sentencepiece_proto
from flamingo_jax.published_vocabulary import DOCUMENT_SEPARATOR, Vocabulary, of_huggingface
from flamingo_jax.sentencepiece_proto import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Piece
from flamingo_jax.tokenizer_models import BYTE_PAIRS_FILE, BytePairs, SentencePiece, byte_pairs


class _Words(NamedTuple):
    """How texts become words, inside of which byte pairs are merged."""

    before: Sequence[pre_tokenizers.PreTokenizer]
    taken_whole: bool = False  # those that the vocabulary has, whatever the merges
    normalizer: normalizers.Normalizer | None = None


def _words(pattern: str, **settings: Any) -> _Words:
    cut = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return _Words([cut, pre_tokenizers.ByteLevel(False, use_regex=False)], **settings)


_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_MARKS = r" ?[^\s\p{L}\p{N}]+"
_GPT4 = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}%s|{_MARKS}[\r\n]*|{_SPACES}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = "|".join(
    rf"[^\r\n\p{{L}}\p{{N}}]?{upper}{lower}%s"
    for upper, lower in ((f"{_UPPER}*", f"{_LOWER}+"), (f"{_UPPER}+", f"{_LOWER}*"))
)
_GPT4O = rf"{_CASED}|\p{{N}}%s|{_MARKS}[\r\n/]*|{_SPACES}"
_LLAMA_3 = _words(_GPT4 % "{1,3}", taken_whole=True)
_DBRX = _words(_GPT4 % "{1,3}")
_QWEN_2 = _words(_GPT4 % "", normalizer=normalizers.NFC())

# By llama.cpp's names, as each model's own tokenizer does it. `transformers` 5.23, of a GGUF file,
# leaves out that "smollm" splits off every digit first, so that its ids differ from ours where two
# or more spaces or newlines precede a digit; and Qwen's NFC.
_PRE_TOKENIZERS = {
    "gpt-2": _Words([_GPT2]),
    "smollm": _Words([pre_tokenizers.Digits(individual_digits=True), _GPT2]),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), _LLAMA_3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN_2),
    **dict.fromkeys(("dbrx", "smaug-bpe"), _DBRX),  # OLMo 2, Phi-4
    "gpt-4o": _words(_GPT4O % (f"{_CONTRACTION}?", f"{_CONTRACTION}?", "{1,3}")),  # Phi-4-mini
    "tekken": _words(_GPT4O % ("", "", ""), taken_whole=True),  # Mistral Nemo
}


def of_gguf(fields: Mapping[str, Any], folder: pathlib.Path | None) -> Vocabulary:
    """For `Tokenizer.from_gguf`."""
    tokens, types = _array(fields, "tokens", str), list(_array(fields, "token_type", int))
    if len(types) != len(tokens):
        raise ValueError(f"GGUF has {len(types)} token types for {len(tokens)} tokens")
    kind, pre = _setting(fields, "model"), _setting(fields, "pre")
    if kind == "gpt2" and pre in _PRE_TOKENIZERS:
        model = _byte_pairs(fields, tokens, types, _PRE_TOKENIZERS[pre])
    elif kind == "llama" and _has_scores(fields, types):
        _mark_unknown(fields, tokens, types)
        model = _sentencepiece(fields, tokens, types)
    else:
        return _beside(folder, tokens, types, f"GGUF tokenizer {kind!r:.40} ({pre!r:.40})")
    control = {i: tokens[i] for i, kind in enumerate(types) if kind == CONTROL}
    ids = _special_ids(fields, control)
    return Vocabulary(
        model,
        base_vocab_size=len(tokens),
        control_tokens=control | {i: tokens[i] for i in ids.values() if i < len(tokens)},
        **ids,
    )


def _byte_pairs(
    fields: Mapping[str, Any], tokens: list[str], types: list[int], words: _Words
) -> BytePairs:
    normal = {token: i for i, token in enumerate(tokens) if types[i] == NORMAL}
    for i, token in enumerate(tokens):
        if types[i] == NORMAL and normal[token] != i:
            raise ValueError(f"GGUF token {token!r:.40} has ids {i} and {normal[token]}")
    vocabulary = {token: i for i, token in enumerate(tokens)} | normal
    return byte_pairs(
        vocabulary,
        [tuple(merge.split(" ")) for merge in _array(fields, "merges", str)],
        words.before,
        normalizer=words.normalizer,
        ignore_merges=words.taken_whole,
        added=[token for i, token in enumerate(tokens) if types[i] == USER_DEFINED],
    )


def _has_scores(fields: Mapping[str, Any], types: list[int]) -> bool:
    """Whether the file says what is joined first: some were converted without."""
    scores = _array(fields, "scores", float)
    if len(scores) != len(types):
        raise ValueError(f"GGUF has {len(scores)} scores for {len(types)} tokens")
    return len({score for score, kind in zip(scores, types, strict=True) if kind == NORMAL}) > 1


def _mark_unknown(fields: Mapping[str, Any], tokens: list[str], types: list[int]) -> None:
    """Which converters count among the control tokens where it is an added one too."""
    unknown = _setting(fields, "unknown_token_id")
    if unknown is None and "<unk>" in tokens:
        unknown = tokens.index("<unk>")
    if UNKNOWN not in types and unknown is not None and 0 <= unknown < len(types):
        types[unknown] = UNKNOWN


def _sentencepiece(fields: Mapping[str, Any], tokens: list[str], types: list[int]) -> SentencePiece:
    pieces = [
        # Converters write the spaces of added tokens as they are in texts.
        Piece(token.replace(" ", "▁") if kind == USER_DEFINED else token, float(score), kind)
        for token, score, kind in zip(tokens, _array(fields, "scores", float), types, strict=True)
    ]
    try:
        return SentencePiece(
            sentencepiece_proto.byte_pairs(
                pieces,
                byte_fallback=BYTE in types,
                add_dummy_prefix=bool(_setting(fields, "add_space_prefix", True)),
                remove_extra_whitespaces=bool(_setting(fields, "remove_extra_whitespaces", False)),
            )
        )
    except (RuntimeError, ValueError, OverflowError) as error:
        raise ValueError(f"GGUF tokens do not make a sentencepiece model: {error}") from error


def _beside(
    folder: pathlib.Path | None, tokens: list[str], types: list[int], what: str
) -> Vocabulary:
    """From the `tokenizer.json` in the file's folder, held against the file's own tokens."""
    if folder is None or not (folder / BYTE_PAIRS_FILE).is_file():
        raise ValueError(
            f"{what} cannot be read by itself, only 'llama' with scores and 'gpt2' of "
            f"{[*_PRE_TOKENIZERS]} can: put the model's {BYTE_PAIRS_FILE} and "
            "tokenizer_config.json beside the file"
        )
    found = of_huggingface(folder, len(tokens), new_are_there=False)
    ids = found.model.vocabulary()
    for i, token in enumerate(tokens):
        if types[i] == NORMAL and ids.get(token) != i:
            raise ValueError(
                f"{folder / BYTE_PAIRS_FILE} is of another model: token {token!r:.40} is "
                f"{ids.get(token)} there and {i} in the GGUF file beside it"
            )
    return found


def _special_ids(fields: Mapping[str, Any], control: Mapping[int, str]) -> dict[str, int]:
    """`bos_id`, `eos_id` and `pad_id`; the document separator as in transformers' folders."""
    names = {"bos_id": "bos", "eos_id": "eos", "pad_id": "padding"}
    ids = {ours: _setting(fields, f"{name}_token_id") for ours, name in names.items()}
    separator = next((i for i, name in control.items() if name == DOCUMENT_SEPARATOR), None)
    if separator is not None and (ids["eos_id"] != separator or ids["bos_id"] is None):
        ids["bos_id"] = ids["eos_id"] = separator
    if ids["pad_id"] is None:
        ids["pad_id"] = ids["eos_id"]
    if not {*map(type, ids.values())} <= {int, type(None)}:
        raise ValueError(f"GGUF metadata have {ids}, want numbers: damaged, fetch the file again")
    if None in ids.values():
        raise ValueError(
            f"GGUF metadata name no bos or eos token, and none is {DOCUMENT_SEPARATOR}"
        )
    return ids


def _array(fields: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    value = _setting(fields, name)
    if not isinstance(value, list) or not value or {*map(type, value)} != {kind}:
        raise ValueError(f"GGUF metadata lack tokenizer.ggml.{name}: the file holds no tokenizer")
    return value


def _setting(fields: Mapping[str, Any], name: str, default: Any = None) -> Any:
    return fields.get(f"tokenizer.ggml.{name}", default)
