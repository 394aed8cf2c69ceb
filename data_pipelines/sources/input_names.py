"""Names of input files in the ids of their records: no two files of a build have the same."""

import collections
import dataclasses
import os
from collections.abc import Sequence
from typing import Self

from data_pipelines.sources.source import Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedByInput(Source):
    """A source whose records are numbered, or have keys, within their input file."""

    # The folder that all input files share, with a slash, and names that several have but for their
    # extensions; `bind` finds both.
    input_folder: str | None = dataclasses.field(default=None, metadata={"bound": True})
    shared_names: tuple[str, ...] = dataclasses.field(default=(), metadata={"bound": True})

    def bind(self, paths: Sequence[str], index_paths: Sequence[str]) -> Self:
        del index_paths
        folder = shared_folder(paths)
        counts = collections.Counter(self.stem(path.removeprefix(folder)) for path in paths)
        shared = tuple(sorted(name for name, count in counts.items() if count > 1))
        return dataclasses.replace(self, input_folder=folder, shared_names=shared)

    def input_name(self, path: str) -> str:
        """The path below the shared folder, without extensions unless they tell it from another."""
        folder = shared_folder([path]) if self.input_folder is None else self.input_folder
        below = path.removeprefix(folder)
        name = self.stem(below)
        return below if name in self.shared_names else name

    def stem(self, path: str) -> str:
        """A path without its extensions: all behind the first dot of its last part."""
        folder, slash, name = path.rpartition("/")
        return folder + slash + name.partition(".")[0]


def shared_folder(paths: Sequence[str]) -> str:
    """The deepest folder that all files are in, with a slash behind it, or nothing."""
    prefix = os.path.commonprefix(list(paths))  # noqa: RUF071, commonpath would spoil gs://
    folder, slash, _ = prefix.rpartition("/")
    return folder + slash
