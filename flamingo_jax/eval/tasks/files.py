"""Reads benchmarks' files; whatever is wrong with one is a TaskError of one line.

A missing file is named with the place it is downloaded from, since none of them comes with this
repository.
"""

import csv
import io
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from flamingo_jax.eval.task import TaskError


def read_json(path: pathlib.Path, source: str) -> Any:
    """The contents of a JSON file that `source`, an address or a name, offers."""
    text = _text(path, source)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise TaskError(
            f"{path}: not JSON at line {error.lineno} ({error.msg}); download it anew: {source}"
        ) from None
    except (RecursionError, ValueError) as error:
        raise TaskError(f"{path}: {_too_much(error)}; download it anew: {source}") from None


def read_lines(path: pathlib.Path, source: str) -> Iterator[tuple[str, Any]]:
    """`PATH:LINE` and the object of each line that is not blank."""
    for where, line in read_text_lines(path, source):
        try:
            yield where, json.loads(line)
        except json.JSONDecodeError as error:
            raise TaskError(f"{where}: not JSON at column {error.colno} ({error.msg})") from None
        except (RecursionError, ValueError) as error:
            raise TaskError(f"{where}: {_too_much(error)}") from None


def read_text_lines(path: pathlib.Path, source: str) -> Iterator[tuple[str, str]]:
    """`PATH:LINE` and the text of each line that is not blank."""
    for number, line in enumerate(_text(path, source).split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def read_csv(path: pathlib.Path, source: str) -> Iterator[tuple[str, dict[str, str]]]:
    """`PATH:LINE` and the fields of each row after the header."""
    rows = csv.DictReader(io.StringIO(_text(path, source)))
    try:
        for row in rows:
            yield f"{path}:{rows.line_num}", row
    except csv.Error as error:  # as where a quotation mark is never closed
        after = f"after line {rows.line_num}"
        raise TaskError(f"{path}: not CSV {after} ({error}); download it anew: {source}") from None


def field(record: Any, name: str, where: str) -> Any:
    """One field of a record; TaskError where it lacks it."""
    if not isinstance(record, Mapping) or record.get(name) is None:
        keys = sorted(record) if isinstance(record, Mapping) else type(record).__name__
        raise TaskError(f"{where}: no field {name!r} in {keys}: the file is of another benchmark")
    return record[name]


def folder(path: pathlib.Path, source: str) -> pathlib.Path:
    """The same; TaskError where there is no such folder of pictures or videos."""
    if not path.is_dir():
        raise TaskError(f"{path}: no such folder; it comes from {source}")
    return path


def _too_much(error: RecursionError | ValueError) -> str:
    """What Python does not read of sound JSON."""
    nested = isinstance(error, RecursionError)
    return "brackets in brackets, too many" if nested else "a number of too many digits"


def _text(path: pathlib.Path, source: str) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        comes = f"; it comes from {source}" if source else ""
        raise TaskError(f"{path}: no such file{comes}") from None
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror})") from None
