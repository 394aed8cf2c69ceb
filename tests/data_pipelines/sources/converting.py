"""Sources run without Beam: what the staging step does with them, in a list."""

import io
import itertools
import pathlib
import tarfile
from collections.abc import Sequence

from data_pipelines import records
from data_pipelines.building.counts import Counts
from data_pipelines.errors import BadRecord
from data_pipelines.records import Document
from data_pipelines.sources.source import Dropped, Source
from flamingo_jax.images import BadMedia


def converted(source: Source, paths: Sequence[pathlib.Path]) -> tuple[list[Document], Counts]:
    """The valid documents of all items, and the counts of what was dropped."""
    documents, counts = [], Counts()
    for item in source.items([str(path) for path in paths]):
        if isinstance(item, Dropped):
            counts.drop(item.reason, item.message)
            continue
        try:
            documents.append(records.validate(source.convert(item, counts)))
        except (BadRecord, BadMedia) as error:
            counts.drop(error.reason, str(error))
    return documents, counts


def write_tar(path: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    """A tar of these members, in this order."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def around_media(document: Document) -> list[str]:
    """The text between the media's positions: one more than there are media."""
    text = document.text.encode()
    cuts = [0, *document.media_positions, len(text)]
    return [text[a:b].decode() for a, b in itertools.pairwise(cuts)]
