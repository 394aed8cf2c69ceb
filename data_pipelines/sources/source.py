"""What a source of documents is: input files to items, and an item to a document.

The two steps are apart so that a build that was killed can pass quickly over items whose documents
it has already written: `items` only finds where one ends, `convert` does the work. A source is a
frozen dataclass of plain values: it is sent to Beam's workers, and its fields are what tells one
build from another. A module of a source has the functions

    add_flags(parser)   the command-line flags of this source
    source(args)        the source that those flags describe; ValueError for what a user can mend
    input_files(args)   only where `--input` is no pattern of files: those that it stands for

and stands in the table of `data_pipelines.build`.
"""

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from data_pipelines.building.counts import Counts
from data_pipelines.building.near_duplicates import hash64
from data_pipelines.records import Document


@dataclasses.dataclass(frozen=True)
class Dropped:
    """In place of an item: a part of the input that is none, such as the rest of a cut file."""

    reason: str
    message: str = ""


@dataclasses.dataclass(frozen=True)
class Source(abc.ABC):
    """What every source has; the defaults are those of one big file after the other."""

    files_per_unit: ClassVar[int] = 1  # input files that one task reads, one after the other
    has_media: ClassVar[bool] = True  # without, documents are text alone
    deduplicates: ClassVar[bool] = False  # whether equal and similar documents are looked for
    index_dtype: ClassVar[np.dtype | None] = None  # rows of `index`; None: there is none

    @abc.abstractmethod
    def items(self, paths: Sequence[str]) -> Iterator[Any]:
        """The items of some input files, in an order that depends on nothing else.

        An item of which nothing can be made is a `Dropped`. Damage loses what it touches and
        nothing more: where the rest of a file cannot be read, that is one `Dropped`, and the next
        file follows.
        """

    @abc.abstractmethod
    def convert(self, item: Any, counts: Counts) -> Document:
        """The document of an item, the same whenever it is asked.

        Raises BadRecord or BadMedia where there is none. A medium that is left out of a document is
        counted with `counts.drop_media`; nothing else is counted here.
        """

    def place(self, document: Document) -> int:
        """Where it stands in the dataset: an evenly spread hash that no other document has."""
        return hash64(document.id)

    def index(self, path: str, number: int) -> np.ndarray:
        """Rows that other files may need of file `path`, the `number`-th: `index_dtype`[n].

        The field `key` is an evenly spread hash; `sorted_rows.find_rows` looks it up later.
        """
        raise TypeError(f"{type(self).__name__} keeps no index: its index_dtype is None")

    def bind(self, paths: Sequence[str], index_paths: Sequence[str]) -> "Source":
        """The source once all of its input files are known, and indexed where it wants that."""
        del paths, index_paths
        return self
