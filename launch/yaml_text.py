"""A manifest as people read it: nested dicts and lists as YAML, without a library.

Only what JSON has, in block style. Names and numbers are bare; any other text is quoted as in JSON,
which is YAML too.
"""

import json
import re
from typing import Any

Value = dict[str, Any] | list[Any] | str | int | bool | None

_BARE = re.compile(r"[A-Za-z/][\w./-]*")
_TAKEN = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}  # are no texts in YAML


def dump(value: Value) -> str:
    """The document, with a line feed at its end."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Value) -> list[str]:
    if isinstance(value, dict) and value:
        return [line for key, below in value.items() for line in _entry(f"{_text(key)}:", below)]
    if isinstance(value, list) and value:
        return [line for below in value for line in _item(below)]
    return [_scalar(value)]


def _entry(key: str, below: Value) -> list[str]:
    if isinstance(below, dict | list) and below:
        return [key, *(f"  {line}" for line in _lines(below))]
    return [f"{key} {_scalar(below)}"]


def _item(below: Value) -> list[str]:
    first, *rest = _lines(below)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _scalar(value: Value) -> str:
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    if _BARE.fullmatch(text) and text.lower() not in _TAKEN:
        return text
    return json.dumps(text)
