"""What a line of a user's own benchmark says; whatever is wrong with it is named, in one line."""

import difflib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flamingo_jax.eval.task import Example, TaskError, shown_answer
from flamingo_jax.prompts import ImagePart, VideoPart

_TASK_KEYS = ("name", "metric", "template", "candidates", "max_tokens")
_MEDIA, _KINDS = ("image", "video"), ("captions", "question", "label")
_KEYS = ("id", "split", *_MEDIA, "captions", "question", "answers", "label", "candidates")


def header(line: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """What the first line says of the whole benchmark, checked."""
    own = line["task"]
    if not isinstance(own, Mapping) or len(line) != 1:
        raise TaskError(f'{where}: want {{"task": {{..}}}} alone on the line')
    _check_keys(own, _TASK_KEYS, where)
    for key in ("name", "metric", "template"):
        if key in own:
            _text(own, key, where)
    name = own.get("name", "")
    if "/" in name or not name.isprintable():
        raise TaskError(f"{where}: name {name!r} names files, so it holds no / nor line breaks")
    if "candidates" in own:
        own = {**own, "candidates": _texts(own, "candidates", where)}
    most = own.get("max_tokens", 1)
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise TaskError(f"{where}: max_tokens={most!r}: use a whole number from 1 on")
    return own


def example(line: Mapping[str, Any], folder: pathlib.Path, where: str) -> tuple[str, str, Example]:
    """The line's kind, its split, and what it says."""
    _check_keys(line, _KEYS, where)
    example_id, split = _text(line, "id", where), _text(line, "split", where)
    if split not in ("support", "query"):
        raise TaskError(f"{where}: split is {split!r}; use 'support' or 'query'")
    kinds = [kind for kind in _KINDS if kind in line]
    if len(kinds) != 1:
        found = f"has {' and '.join(kinds)}" if kinds else "has none of them"
        raise TaskError(
            f'{where}: want "captions", or "question" and "answers", or "label": the line {found}'
        )
    (kind,) = kinds
    if ("answers" in line) != (kind == "question"):
        raise TaskError(f'{where}: "question" and "answers" go together')
    if kind == "label":
        references = (_text(line, "label", where),)
    else:
        references = _texts(line, "captions" if kind == "captions" else "answers", where)
    fields = {"question": _text(line, "question", where)} if kind == "question" else {}
    candidates = _texts(line, "candidates", where) if "candidates" in line else ()
    if candidates and kind == "captions":
        raise TaskError(f'{where}: "candidates" go with "question" or "label", not with captions')
    media = _media(line, folder, where)
    answer = shown_answer(references) if kind == "question" else references[0]
    return kind, split, Example(example_id, media, answer, references, fields, candidates)


def _media(line: Mapping[str, Any], folder: pathlib.Path, where: str) -> ImagePart | VideoPart:
    given = [key for key in _MEDIA if key in line]
    if len(given) != 1:
        raise TaskError(f'{where}: want "image" or "video", one of them')
    path = _text(line, given[0], where)
    if "\0" in path:
        raise TaskError(f"{where}: {given[0]} {path!r} is no path, for it holds a null character")
    if "://" in path:
        raise TaskError(f"{where}: {path} is an address; download it and give the file's path")
    return ImagePart(folder / path) if given[0] == "image" else VideoPart(folder / path)


def _check_keys(record: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in record:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"use {list(known)}"
            raise TaskError(f"{where}: unknown key {key!r}; {hint}")


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip() or not _is_whole(value):
        found = "is missing" if value is None else f"is {value!r}"
        raise TaskError(f"{where}: {key} {found}; give a text that is not empty")
    return value.strip()


def _texts(record: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = record[key]
    good = isinstance(values, list) and values
    if not good or not all(isinstance(v, str) and v.strip() and _is_whole(v) for v in values):
        raise TaskError(f"{where}: {key} must be a list of one text or more, none empty")
    return tuple(value.strip() for value in values)


def _is_whole(text: str) -> bool:
    """Not with half of a pair of JSON's \\u escapes, which no tokenizer can read."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
