"""Which version of a dataset is the newest: by its numbers, so that 1.10.0 comes after 1.9.0."""

import os
import pathlib
import re

from etils import epath

from data_pipelines.reading import bucket_files

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_INFO = "dataset_info.json"


def newest_versions(root: str | os.PathLike) -> list[pathlib.Path]:
    """The folder of each dataset at or below `root`, in its newest version; sorted by name.

    A dataset is what has a `dataset_info.json`. Those whose folders are called by versions are one
    dataset where they lie beside each other; `root` itself is taken where it is one. Those of a
    bucket are `epath.Path`s, which are named in the same way.
    """
    in_bucket = bucket_files.is_address(root)
    root = epath.Path(root) if in_bucket else pathlib.Path(root)
    if bucket_files.exists(root / _INFO) if in_bucket else (root / _INFO).is_file():
        return [root]
    folders = _in_bucket(root) if in_bucket else [p.parent for p in root.glob(f"**/{_INFO}")]
    newest: dict[pathlib.Path, pathlib.Path] = {}
    for folder in sorted(folders, key=lambda folder: (_numbers(folder), folder)):
        newest[folder.parent if _numbers(folder) else folder] = folder
    return [newest[name] for name in sorted(newest)]


def _in_bucket(root: epath.Path) -> list[epath.Path]:
    names = map(pathlib.PurePosixPath, bucket_files.names(root))
    return [root / name.parent for name in names if name.name == _INFO]


def _numbers(folder: pathlib.Path) -> tuple[int, ...]:
    match = _VERSION.fullmatch(folder.name)
    return tuple(int(number) for number in match.groups()) if match else ()
