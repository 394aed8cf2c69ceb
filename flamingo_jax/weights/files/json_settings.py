"""Settings in the JSON beside published weights, each of the type that it must have.

Files are edited by hand and made by many programs. A number in quotes would otherwise differ from
itself in a message, or end in the middle of a computation.
"""

import pathlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files


class JsonSettings(NamedTuple):
    """An object in a JSON file. A reader of a key raises BadWeightsFile for another type there."""

    file: pathlib.Path
    values: Mapping[str, Any]
    inside: str = ""  # the keys above, each with a dot behind it

    def whole(self, key: str, default: int) -> int:
        """A whole number above 0."""
        value = self.values.get(key, default)
        return self.checked(key, value, _is_whole(value), "a whole number from 1 on")

    def positive(self, key: str, default: float) -> float:
        """A finite number above 0."""
        value = self.values.get(key, default)
        return self.checked(key, value, _is_number(value) and value > 0, "a number above 0")

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(key, default)
        return self.checked(key, value, isinstance(value, bool), "true or false")

    def text(self, key: str, default: str) -> str:
        """A text."""
        value = self.values.get(key, default)
        return self.checked(key, value, isinstance(value, str), "a text")

    def channels(self, key: str) -> tuple[float, ...]:
        """Three finite numbers, of red, green and blue; the key must be there."""
        value = self.values[key]
        good = isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))
        return tuple(self.checked(key, value, good, "three numbers"))

    def side(self, key: str, default: int) -> Any:
        """A square's side, a number, or equal ones in a list or an object; else what is there."""
        value = self.values.get(key, default)
        sides = value.values() if isinstance(value, Mapping) else value
        sides = [*sides] if isinstance(sides, list) or isinstance(value, Mapping) else [sides]
        good = bool(sides) and all(_is_whole(side) for side in sides)
        self.checked(key, value, good, "a size in pixels")
        return value if len({*sides}) > 1 else sides[0]

    def section(self, key: str) -> "JsonSettings":
        """The object at a key, an empty one where there is none or null."""
        value = self.values.get(key)
        value = {} if value is None else value
        self.checked(key, value, isinstance(value, Mapping), "an object")
        return JsonSettings(self.file, value, f"{self.inside}{key}.")

    def checked(self, key: str, value: Any, good: bool, want: str) -> Any:
        """The value; BadWeightsFile unless it is `good`, with what was wanted."""
        if not good:
            raise BadWeightsFile(
                f"{self.file}: {self.inside}{key} is {value!r}, want {want}: fetch the file again"
            )
        return value


def read(file: pathlib.Path) -> JsonSettings:
    """A file's; BadWeightsFile where it is missing or damaged."""
    return JsonSettings(file, checkpoint_files.json_object(file))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max  # no NaN, which compares as False
