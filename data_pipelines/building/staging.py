"""First step of a build: input files to candidate records in chunks, each chunk whole or not there.

A unit is one or several input files, a chunk a fixed number of its items. A chunk is three files
beside each other: serialized records, one row for every page (record) and one for every picture
that duplicates are looked for among; its counts, written last, say that it is whole. A build that
was killed finds them and converts only what is missing.
"""

import dataclasses
import itertools
import logging
import reprlib
from collections.abc import Iterator

import numpy as np
from etils import epath

from data_pipelines import records
from data_pipelines.building.counts import Counts
from data_pipelines.building.near_duplicates import NUM_TEXT_KEYS, hash64, text_keys
from data_pipelines.building.sorted_rows import write_rows
from data_pipelines.errors import BadRecord
from data_pipelines.records import Document
from data_pipelines.sources.source import Dropped, Source
from data_pipelines.whole_files import open_whole, read_json, write_json
from flamingo_jax.images import BadMedia

PAGE_ROW = np.dtype(
    [
        ("key", "<u8"),  # the source's `place`: the order of the finished dataset
        ("unit", "<u4"),
        ("chunk", "<u4"),
        ("offset", "<u8"),
        ("length", "<u4"),
        ("num_media", "<u4"),
        ("texts", "<u8", (NUM_TEXT_KEYS,)),
    ]
)
IMAGE_ROW = np.dtype([("key", "<u8"), ("page", "<u8"), ("media", "<u8")])
_MAX_RECORD_BYTES = 1 << 30  # half of what protobuf can hold
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200  # characters, enough for the names of items


@dataclasses.dataclass(frozen=True)
class Job:
    """All that the tasks of one build know; sent to every worker."""

    source: Source
    paths: tuple[str, ...]  # the input files, sorted
    folder: str  # where everything unfinished is kept
    name: str  # of the dataset
    records_per_chunk: int
    shard_bytes: int
    output: str | None = None  # where shards are written at once: a bucket's files are not renamed

    @property
    def num_units(self) -> int:
        return -(-len(self.paths) // self.source.files_per_unit)

    def unit_paths(self, unit: int) -> tuple[str, ...]:
        count = self.source.files_per_unit
        return self.paths[unit * count : (unit + 1) * count]

    def file(self, *names: str) -> str:
        return str(epath.Path(self.folder, *names))

    def dataset_file(self, *names: str) -> str:
        return str(epath.Path(self.output or self.file("dataset"), *names))

    def chunk_file(self, unit: int, chunk: int, kind: str) -> str:
        return self.file("chunks", f"{unit:06d}-{chunk:06d}.{kind}")

    def files(self, folder: str, kind: str) -> list[str]:
        """The whole files of one kind, sorted by name."""
        return sorted(str(path) for path in epath.Path(self.folder, folder).glob(f"*.{kind}"))


def stage(job: Job, unit: int) -> None:
    """Writes the chunks that one unit lacks."""
    done = epath.Path(job.file("units", f"{unit:06d}.done"))
    if done.exists():
        return
    source = job.source
    items = iter(source.items(job.unit_paths(unit)))
    for chunk in itertools.count():
        some = itertools.islice(items, job.records_per_chunk)
        if epath.Path(job.chunk_file(unit, chunk, "json")).exists():
            number = sum(1 for _ in some)
        else:
            number = _write_chunk(job, unit, chunk, some)
        if number < job.records_per_chunk:
            break
    write_json(str(done), {})


def read_document(job: Job, row: np.void) -> Document:
    """The candidate record that a `PAGE_ROW` points to."""
    with epath.Path(job.chunk_file(row["unit"], row["chunk"], "records")).open("rb") as file:
        file.seek(int(row["offset"]))
        return records.deserialize(file.read(int(row["length"])))


def count_rows(paths: list[str]) -> tuple[int, int, int]:
    """Pages, rows of pictures, and bytes of records that chunks hold, from their counts."""
    sizes = [read_json(path)["size"] for path in paths]
    return tuple(sum(size[key] for size in sizes) for key in ("pages", "images", "bytes"))


def _write_chunk(job: Job, unit: int, chunk: int, items: Iterator) -> int:
    counts, pages, images = Counts(), [], []
    number = offset = 0
    with open_whole(job.chunk_file(unit, chunk, "records")) as file:
        for item in items:
            number += 1
            document, data = _convert(job.source, item, counts)
            if document is None:
                continue
            page = job.source.place(document)
            texts = text_keys(document.text) if job.source.deduplicates else 0
            pages.append((page, unit, chunk, offset, len(data), len(document.media), texts))
            if job.source.deduplicates:
                images += _image_rows(page, document)
            file.write(data)
            offset += len(data)
    write_rows(job.chunk_file(unit, chunk, "pages"), np.array(pages, PAGE_ROW))
    write_rows(job.chunk_file(unit, chunk, "images"), np.array(images, IMAGE_ROW))
    size = {"pages": len(pages), "images": len(images), "bytes": offset}
    write_json(
        job.chunk_file(unit, chunk, "json"),
        {"items": number, "size": size, "counts": counts.to_json()},
    )
    return number


def _convert(source: Source, item, counts: Counts) -> tuple[Document | None, bytes]:
    """A document and its serialized form, or None and why not in `counts`."""
    if isinstance(item, Dropped):
        counts.drop(item.reason, item.message)
        return None, b""
    try:
        document = records.validate(source.convert(item, counts), with_media=source.has_media)
        data = records.serialize(document)
        if len(data) > _MAX_RECORD_BYTES:
            raise BadRecord("too_large", f"record {document.id!r} has {len(data)} bytes")
    except (BadRecord, BadMedia) as error:
        counts.drop(error.reason, str(error))
        return None, b""
    except (MemoryError, OSError):  # the machine's, and perhaps not there the next time
        raise
    except Exception as error:  # what no reader foresaw is not to end a build of many days
        message = f"{_SHORT.repr(item)}: {type(error).__name__}: {error}"
        if not counts.dropped["unexpected_error"]:  # once a chunk
            logging.error("record dropped: %s", " ".join(message.split()))
        counts.drop("unexpected_error", message)
        return None, b""
    return document, data


def _image_rows(page: int, document: Document) -> list[tuple[int, int, int]]:
    """Two rows a picture: by its bytes, and by its perceptual hash."""
    rows = []
    for name, about in zip(document.media_ids, document.metadata["media"], strict=True):
        media = int(name, 16)
        rows.append((hash64("equal", name), page, media))
        rows.append((hash64("similar", about["perceptual_hash"]), page, media))
    return rows
