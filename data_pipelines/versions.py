"""Which version of a dataset is the newest: by its numbers, so that 1.10.0 comes after 1.9.0."""

import os
import pathlib
import re

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def newest_versions(root: str | os.PathLike) -> list[pathlib.Path]:
    """The folder of each dataset at or below `root`, in its newest version; sorted by name.

    A dataset is what has a `dataset_info.json`. Those whose folders are called by versions are one
    dataset where they lie beside each other; `root` itself is taken where it is one.
    """
    root = pathlib.Path(root)
    if (root / "dataset_info.json").is_file():
        return [root]
    newest: dict[pathlib.Path, pathlib.Path] = {}
    folders = [path.parent for path in root.glob("**/dataset_info.json")]
    for folder in sorted(folders, key=lambda folder: (_numbers(folder), folder)):
        newest[folder.parent if _numbers(folder) else folder] = folder
    return [newest[name] for name in sorted(newest)]


def _numbers(folder: pathlib.Path) -> tuple[int, ...]:
    match = _VERSION.fullmatch(folder.name)
    return tuple(int(number) for number in match.groups()) if match else ()
