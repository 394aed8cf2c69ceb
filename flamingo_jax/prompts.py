"""Prompts, part by part in reading order, and the files they are read from.

The model sees exactly the parts; `<BOS>` alone is added when they become tokens.

A `.json` file is a list of parts; a `.jsonl` file has one object a line,
`{"id": "q1", "prompt": [parts], "candidates": ["yes", "no"]}`, where `candidates` is for scoring
and `id` may be left out (the line's number then). Relative paths start at the file's folder. Every
error is a PromptError of one line that names the file, the line, the key and the remedy.
"""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_PART_KEYS = ("image", "video", "text", "end_of_chunk")
_NEVER_MEDIA = (type(None), bool, int, float, Mapping)
_PROMPT_KEYS = ("id", "prompt", "candidates")


@dataclasses.dataclass(frozen=True)
class ImagePart:
    """A picture: a path, encoded bytes, a PIL image, or u8[H, W, 3]."""

    image: Any


@dataclasses.dataclass(frozen=True)
class VideoPart:
    """A video: a path, u8[F, H, W, 3], or float[n, P, E], features of a file's frames."""

    video: Any


@dataclasses.dataclass(frozen=True)
class TextPart:
    """Text exactly as the model is to see it."""

    text: str


@dataclasses.dataclass(frozen=True)
class EndOfChunk:
    """The mark `<EOC>` that closes a picture's text."""


Part = ImagePart | VideoPart | TextPart | EndOfChunk


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One prompt, and the texts to score after it (none where it is to be continued)."""

    id: str
    parts: tuple[Part, ...]
    candidates: tuple[str, ...] = ()


class PromptError(ValueError):
    """A prompt that cannot be used; the message is one line."""


def read_prompts(path: str | Path) -> list[Prompt]:
    """The prompts of a `.json` or `.jsonl` file, in its order; pictures are checked to be there."""
    path = Path(path)
    if path.suffix not in (".json", ".jsonl"):
        raise PromptError(
            f"{path}: a prompt file ends in .json (one prompt) or .jsonl (one a line)"
        )
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise PromptError(f"{path}: no such file") from None
    except UnicodeDecodeError as e:
        raise PromptError(f"{path}: not UTF-8 at byte {e.start}; save it as UTF-8") from None
    except OSError as e:
        raise PromptError(f"{path}: cannot be read ({e.strerror})") from None
    if path.suffix == ".json":
        parts = _files_exist(parse_parts(_load(text, str(path)), str(path)), path.parent, str(path))
        return [Prompt(path.stem, parts)]
    prompts: dict[str, Prompt] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            prompt = _parse_prompt(_load(line, where), str(number), where)
            if prompt.id in prompts:
                raise PromptError(f"{where}: id {prompt.id!r} was used before; give each its own")
            parts = _files_exist(prompt.parts, path.parent, where)
            prompts[prompt.id] = Prompt(prompt.id, parts, prompt.candidates)
    if not prompts:
        raise PromptError(f"{path}: no prompts; write one JSON object a line")
    return list(prompts.values())


def parse_parts(values: Any, where: str = "prompt") -> tuple[Part, ...]:
    """Checks a list of `{"image": ..}`, `{"video": ..}`, `{"text": ..}`, `{"end_of_chunk": true}`.

    Pictures may be paths or, from Python, PIL images and arrays. Raises PromptError, its message
    beginning with `where`.
    """
    if isinstance(values, Mapping) or not isinstance(values, Sequence) or isinstance(values, str):
        raise PromptError(f'{where}: want a list of parts such as [{{"image": "a.jpg"}}]')
    if not values:
        raise PromptError(f"{where}: the list of parts is empty")
    return tuple(_parse_part(value, f"{where}: part {i}") for i, value in enumerate(values, 1))


def each_prompt(prompts: Iterable[Any]) -> Iterable[Any]:
    """The same; PromptError for a single prompt, whose parts would each be taken for a prompt."""
    one = prompts[0] if isinstance(prompts, Sequence) and prompts else None
    if isinstance(prompts, str | Mapping | Prompt) or isinstance(one, Mapping | Part):
        raise PromptError("want a list of prompts; for a single one, [prompt]")
    return prompts


def as_prompt(prompt: Any) -> Prompt:
    """Of a list of parts as `parse_parts` takes it, or of a text alone; a Prompt as it is."""
    if isinstance(prompt, Prompt):
        return prompt
    if isinstance(prompt, str):
        return Prompt("", (TextPart(prompt),))
    return Prompt("", parse_parts(prompt))


def _parse_part(value: Any, where: str) -> Part:
    if isinstance(value, ImagePart | VideoPart | TextPart | EndOfChunk):
        return value
    if not isinstance(value, Mapping) or len(value) != 1:
        found = f"{len(value)} keys" if isinstance(value, Mapping) else type(value).__name__
        raise PromptError(
            f"{where}: want an object with one key of {list(_PART_KEYS)}, got {found}"
        )
    ((key, content),) = value.items()
    if key == "text":
        if not isinstance(content, str) or not content:
            raise PromptError(f"{where}: text must be a string that is not empty")
        _check_text(content, f"{where}: text")
        return TextPart(content)
    if key == "end_of_chunk":
        if content is not True:
            raise PromptError(f"{where}: end_of_chunk must be true; leave the part out otherwise")
        return EndOfChunk()
    if key not in _PART_KEYS:
        raise PromptError(f"{where}: unknown key {key!r}; {_suggest(key, _PART_KEYS)}")
    if (isinstance(content, str) and not content) or isinstance(content, _NEVER_MEDIA):
        python = "an array" if key == "video" else "a PIL image or an array"
        raise PromptError(f"{where}: {key} must be a path, or in Python {python}")
    return ImagePart(content) if key == "image" else VideoPart(content)


def _parse_prompt(value: Any, default_id: str, where: str) -> Prompt:
    if not isinstance(value, Mapping):
        raise PromptError(f'{where}: want an object {{"id": .., "prompt": [..]}}')
    for key in value:
        if key not in _PROMPT_KEYS:
            raise PromptError(f"{where}: unknown key {key!r}; {_suggest(key, _PROMPT_KEYS)}")
    if "prompt" not in value:
        raise PromptError(f'{where}: key "prompt" is missing')
    prompt_id = value.get("id", default_id)
    if not isinstance(prompt_id, str):
        raise PromptError(f"{where}: id must be a string, got {prompt_id!r}")
    _check_text(prompt_id, f"{where}: id")
    candidates = value.get("candidates", [])
    if not isinstance(candidates, list) or not all(isinstance(c, str) and c for c in candidates):
        raise PromptError(f"{where}: candidates must be a list of strings that are not empty")
    if "candidates" in value and not candidates:
        raise PromptError(f"{where}: candidates is empty; list the texts to score or leave it out")
    for candidate in candidates:
        _check_text(candidate, f"{where}: candidate {candidate!r}")
    parts = parse_parts(value["prompt"], f"{where}: prompt")
    return Prompt(prompt_id, parts, tuple(candidates))


def _check_text(text: str, where: str) -> None:
    """PromptError for half of a pair of JSON's \\u escapes, which no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise PromptError(
            f"{where}: {half} is half a character; write both halves or leave it out"
        ) from None


def _files_exist(parts: Sequence[Part], folder: Path, where: str) -> tuple[Part, ...]:
    """The parts with paths made to start at `folder`."""
    resolved: list[Part] = []
    for i, part in enumerate(parts, 1):
        if isinstance(part, ImagePart | VideoPart):
            kind, content = (
                ("image", part.image) if isinstance(part, ImagePart) else ("video", part.video)
            )
            if not isinstance(content, str):
                raise PromptError(f"{where}: part {i}: {kind} must be a path")
            if "://" in content:
                raise PromptError(
                    f"{where}: part {i}: {kind}: {content} is an address; download it and give "
                    "the file's path"
                )
            file = folder / content
            if not file.is_file():
                raise PromptError(f"{where}: part {i}: {kind}: no such file {file}")
            part = ImagePart(file) if kind == "image" else VideoPart(file)
        resolved.append(part)
    return tuple(resolved)


def _load(text: str, where: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise PromptError(f"{where}: key {min(twice)!r} is given twice in one object")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except PromptError:
        raise
    except json.JSONDecodeError as e:
        line = f" line {e.lineno}" if "\n" in text.strip() else ""
        raise PromptError(f"{where}:{line} not JSON at column {e.colno} ({e.msg})") from None
    except RecursionError:
        raise PromptError(f"{where}: brackets in brackets, too many to be a prompt") from None
    except ValueError:  # Python's own limit
        raise PromptError(f"{where}: a number of too many digits; texts stand in quotes") from None


def _suggest(key: str, valid: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, valid, 1)
    return f"did you mean {close[0]!r}?" if close else f"use one of {list(valid)}"
