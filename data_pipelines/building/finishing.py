"""Last steps of a build: candidate records to the shards of a TFDS dataset, and its metadata.

Shards are even ranges of the hash of a record's id, which a source may begin with that of its
picture, and inside a shard records are sorted by it: the order is random in the sense that matters,
and the same however the input was cut into tasks.
"""

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from data_pipelines import records
from data_pipelines.building.counts import Counts
from data_pipelines.building.deduplication import REMOVAL_ROW, REPEAT_ROW
from data_pipelines.building.sorted_rows import read_rows
from data_pipelines.building.staging import PAGE_ROW, Job, read_document
from data_pipelines.reading import record_bounds
from data_pipelines.reading.tfrecord import framed
from data_pipelines.whole_files import open_whole, read_json, write_json

SPLIT = "train"


def write_shard(job: Job, shard: int, num_shards: int) -> None:
    """Writes one shard, and beside it what it holds and what was dropped on the way."""
    about = job.file("shards", f"{shard:05d}.json")
    if epath.Path(about).exists():
        return
    pages = read_rows(job.files("chunks", "pages"), shard, num_shards, PAGE_ROW)
    removals = read_rows(job.files("removals", "removals"), shard, num_shards, REMOVAL_ROW)
    repeats = read_rows(job.files("repeats", "repeats"), shard, num_shards, REPEAT_ROW)
    counts, num_bytes, previous, bounds = Counts(), 0, None, [0]
    path = job.dataset_file(_shard_name(job, shard, num_shards))
    with open_whole(path) as file:
        for page in pages:
            reason = "same_id" if page["key"] == previous else _repeat(repeats, page["key"])
            previous = page["key"]
            if reason:
                counts.drop(reason, "" if reason in counts.examples else _named(job, page))
                counts.drop_media("in_a_dropped_record", number=int(page["num_media"]))
                continue
            document = _without(read_document(job, page), page["key"], removals, counts)
            if job.source.has_media and not document.media:
                counts.drop("no_media_left", f"{document.id}: all media are on many pages")
                continue
            data = records.serialize(document)
            frame = framed(data)
            file.write(frame)
            bounds.append(bounds[-1] + len(frame))
            counts.kept += 1
            counts.media_kept += len(document.media)
            num_bytes += len(data)
    record_bounds.save(path, bounds)
    write_json(about, {"records": counts.kept, "bytes": num_bytes, "counts": counts.to_json()})


def write_metadata(job: Job, num_shards: int, description: str) -> Counts:
    """Makes the shards a dataset that TFDS opens; returns the counts of the whole build."""
    counts = Counts()
    for path in job.files("chunks", "json"):
        counts.add(Counts.from_json(read_json(path)["counts"]))
    shards = [read_json(job.file("shards", f"{n:05d}.json")) for n in range(num_shards)]
    for shard in shards:
        counts.add(Counts.from_json(shard["counts"]))
    folder = job.dataset_file()
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=job.name, split=SPLIT, filetype_suffix="tfrecord"
    )
    split = tfds.core.SplitInfo(
        name=SPLIT,
        shard_lengths=[shard["records"] for shard in shards],
        num_bytes=sum(shard["bytes"] for shard in shards),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=records.features(),
        split_infos=[split],
        description=description,
        check_data=False,
    )
    write_json(str(epath.Path(folder, "counts.json")), counts.to_json())
    return counts


def _shard_name(job: Job, shard: int, num_shards: int) -> str:
    return f"{job.name}-{SPLIT}.tfrecord-{shard:05d}-of-{num_shards:05d}"


def _named(job: Job, page: np.void) -> str:
    """A candidate record as the source knows it: its id, and its address where it has one."""
    document = read_document(job, page)
    return " ".join(filter(None, (document.id, document.metadata.get("url"))))


def _repeat(repeats: np.ndarray, key: np.uint64) -> str | None:
    """Why a page is dropped as a repetition, if it is."""
    start, stop = (np.searchsorted(repeats["key"], key, side) for side in ("left", "right"))
    found = repeats[start:stop]
    if not len(found):
        return None
    return "similar_text" if found["similar"].all() else "equal_text"


def _without(
    document: records.Document, key: np.uint64, removals: np.ndarray, counts: Counts
) -> records.Document:
    """The document without its pictures that stand on many pages."""
    start, stop = (np.searchsorted(removals["key"], key, side) for side in ("left", "right"))
    names = {f"{media:016x}" for media in removals["media"][start:stop]}
    kept = records.without_media(document, names) if names else document
    if lost := len(document.media) - len(kept.media):
        counts.drop_media("on_many_pages", number=lost)
    return kept
