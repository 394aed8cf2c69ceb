"""What several configs check of their numbers, in words that name the field and what works."""

from typing import Any


def check_sizes(config: Any, part: str, *names: str, least: int = 1) -> None:
    """ValueError for the first of these fields that is too small."""
    for name in names:
        if getattr(config, name) < least:
            raise ValueError(f"{part}.{name}={getattr(config, name)}: use {least} or more")


def check_divides(field: str, value: int, whole_field: str, whole: int) -> None:
    """ValueError where a number does not divide another field's."""
    if value < 1 or whole % value:
        valid = [n for n in range(1, whole + 1) if whole % n == 0]
        raise ValueError(
            f"{field}={value} does not divide {whole_field}={whole}: use one of {valid}"
        )
