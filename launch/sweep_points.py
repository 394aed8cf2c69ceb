"""The points of a sweep: what each sets in the recipe, and the name of its folder.

A name is made of the point's own settings alone, in the order of their keys, so that it stays where
points are added, left out or asked for in another order.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import re
from collections.abc import Mapping, Sequence

BASE = "base"  # the point that sets nothing
_MAX_NAME = 150  # a file system takes 255 bytes
_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_CLOSING = {"(": ")", "[": "]"}


@dataclasses.dataclass(frozen=True)
class Point:
    """Values as they are typed, by their keys in the recipe."""

    overrides: Mapping[str, str]

    @property
    def name(self) -> str:
        """Of its folder: its settings, with a hash where they cannot all be written there."""
        whole = ",".join(f"{key}={self.overrides[key]}" for key in sorted(self.overrides)) or BASE
        name = re.sub(r"[^\w.,=+-]", "_", whole, flags=re.ASCII)[:_MAX_NAME]
        if name == whole:
            return name
        return f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"

    @property
    def flags(self) -> list[str]:
        """The settings as `experiments.train` takes them, in the order of the name."""
        return [f"--config.{key}={self.overrides[key]}" for key in sorted(self.overrides)]


def from_grid(axes: Sequence[str]) -> list[Point]:
    """Every combination of `KEY=VALUE,VALUE,...`, the last axis running fastest; ValueError."""
    values: dict[str, list[str]] = {}
    for axis in axes:
        key, equals, text = axis.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise ValueError(f"--grid={axis}: write KEY=VALUE,VALUE, as in optim.beta2=0.95,0.99")
        if key in values:
            raise ValueError(f"--grid={axis}: {key} has values already, write all in one --grid")
        values[key] = _split(text)
    combinations = itertools.product(*values.values())
    return _different([Point(dict(zip(values, each, strict=True))) for each in combinations])


def from_file(path: pathlib.Path) -> list[Point]:
    """One point a line, as a JSON object of settings; ValueError says which line is wrong."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--file={path}: cannot be read ({error})") from error
    points = [
        Point(_overrides(line, f"--file={path}, line {number}"))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not points:
        raise ValueError(f"--file={path}: has no points, write one JSON object a line")
    return _different(points)


def _overrides(line: str, where: str) -> dict[str, str]:
    try:
        values = json.loads(line, parse_float=str, parse_int=str)  # 1e-4 stays as it is written
    except ValueError as error:
        raise ValueError(f"{where}: is no JSON ({error})") from error
    if not isinstance(values, dict) or not all(map(_KEY.fullmatch, values)):
        raise ValueError(f'{where}: write an object of settings, as {{"optim.beta2": 0.95}}')
    for key, value in values.items():
        if not isinstance(value, str | bool):
            raise ValueError(f'{where}: write {key} as a number or a text, such as "(0, 4)"')
    return {k: str(v).lower() if isinstance(v, bool) else v for k, v in values.items()}


def _split(text: str) -> list[str]:
    """At its commas, but for those in brackets."""
    parts, open_ = [""], []
    for character in text:
        if character in _CLOSING:
            open_.append(_CLOSING[character])
        elif open_ and character == open_[-1]:
            open_.pop()
        if character == "," and not open_:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _different(points: Sequence[Point]) -> list[Point]:
    names = [point.name for point in points]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the point {name} is there twice: write each value once")
    return list(points)
