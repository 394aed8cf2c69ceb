"""The steps of a build as Beam pipelines, and the folder that a killed build continues from.

Every step is a list of tasks over which Beam maps a function; a task reads files of the step before
and writes files of its own, whole or not at all, and does nothing where they are there. What goes
through Beam is task numbers only: its DirectRunner keeps all that is shuffled in memory, so that a
build would grow with its input. The steps and their order:

    index     input file -> where its pictures lie                       (WARC)
    merge     the same, by address instead of by file                    (WARC)
    stage     input files -> candidate records, in chunks
    images    hashes of pictures -> pictures on too many pages           (pages)
    texts     pages with a picture left -> keys of their texts           (pages)
    repeats   keys of texts -> pages that repeat another                 (pages)
    shards    candidate records -> shards of the dataset, sorted by hash
"""

import builtins
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from etils import epath

from data_pipelines import folder_lock
from data_pipelines.building import deduplication, finishing, staging
from data_pipelines.building.counts import Counts
from data_pipelines.building.near_duplicates import NUM_TEXT_KEYS
from data_pipelines.building.progress import Progress
from data_pipelines.building.sorted_rows import BUCKETS, num_partitions, read_rows, write_rows
from data_pipelines.building.staging import Job
from data_pipelines.reading import bucket_files
from data_pipelines.sources.source import Source
from data_pipelines.whole_files import read_json, write_json

_ROWS_PER_PART = 500_000  # about 40 MB while a part is sorted
_FOLDERS = (
    "index",
    "merged",
    "chunks",
    "units",
    "removals",
    "texts",
    "repeats",
    "shards",
    "dataset",
)
_ERROR = re.compile(r"^(?:[\w.]*\.)?([A-Z]\w*): (.*)$", re.MULTILINE)
_WHERE = re.compile(r" ?\[while running .*$", re.DOTALL)


def run(job: Job, output: str, options: PipelineOptions) -> Counts:
    """Builds the dataset in `output`, or says what it held if the same build is there already.

    Raises ValueError where `output` or the folder of an unfinished build hold something else or are
    being built by another process, where nothing was kept, and OSError as files do.
    """
    about = _about(job)
    finished, folder = epath.Path(output), epath.Path(job.folder)
    if _is_taken(finished, job):
        _check_same(finished / "build.json", about, f"--output={output} holds")
        folder.rmtree(missing_ok=True)  # a kill between the last two lines below
        return Counts.from_json(read_json(str(finished / "counts.json")))
    # Chunks of another size would be gone on with in the wrong place; what comes of them is equal.
    begun = about | {"records_per_chunk": job.records_per_chunk}
    goes_on = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(job.folder):
        if goes_on:
            _check_same(folder / "build.json", begun, f"{folder} holds the beginning of")
        for name in _FOLDERS:
            (folder / name).mkdir(exist_ok=True)
        write_json(str(folder / "build.json"), begun)
        return _finish(job, finished, about, _steps(job, functools.partial(_map, options)))


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """ValueError where another process of this machine builds in the folder; not of a bucket."""
    if bucket_files.is_address(folder):
        yield
        return
    try:
        lock = folder_lock.take(folder)
    except BlockingIOError:
        raise ValueError(
            f"another process builds in {folder}: wait for its end, or stop it"
        ) from None
    try:
        yield
    finally:
        os.close(lock)


def _finish(job: Job, finished: epath.Path, about: dict[str, Any], counts: Counts) -> Counts:
    """Gives what was built its place; ValueError where nothing was kept."""
    folder = epath.Path(job.folder)
    if not counts.kept:
        folder.rmtree()
        epath.Path(job.dataset_file()).rmtree(missing_ok=True)  # in a bucket
        found = str(counts).replace("\n", "; ") if counts.dropped else "there is none in the input"
        raise ValueError(f"no record was kept, so there is no dataset: {found}")
    write_json(job.dataset_file("build.json"), about)
    if not job.output:
        if finished.exists():
            finished.rmdir()
        finished.parent.mkdir(parents=True, exist_ok=True)
        epath.Path(job.dataset_file()).rename(finished)
    folder.rmtree()
    return counts


def _is_taken(finished: epath.Path, job: Job) -> bool:
    """Whether the dataset's folder holds something that this build has not begun."""
    if not finished.exists() or not any(finished.iterdir()):
        return False
    begun = job.output and epath.Path(job.folder).exists()
    return not begun or (finished / "build.json").exists()


def _steps(job: Job, each: Callable[..., None]) -> Counts:
    source = job.source
    with Progress(job) as progress:
        if source.index_dtype is not None:
            progress.step("index", len(job.paths))
            each(_index, job, len(job.paths))
            parts = min(BUCKETS, len(job.paths))
            progress.step("merge", parts)
            each(_merge, job, parts, parts)
        source = source.bind(job.paths, job.files("merged", "index"))
        job = dataclasses.replace(job, source=source)
        progress.step("stage", job.num_units)
        each(staging.stage, job, job.num_units)
        num_pages, num_images, num_bytes = staging.count_rows(job.files("chunks", "json"))
        if source.deduplicates:
            parts = num_partitions(num_images, _ROWS_PER_PART)
            progress.step("images", parts)
            each(deduplication.find_common_images, job, parts, parts)
            parts = num_partitions(num_pages * NUM_TEXT_KEYS, _ROWS_PER_PART)
            progress.step("texts", parts)
            each(deduplication.list_texts, job, parts, parts)
            progress.step("repeats", parts)
            each(deduplication.find_repeated_pages, job, parts, parts)
        shards = num_partitions(num_bytes, job.shard_bytes)
        progress.step("shards", shards)
        each(finishing.write_shard, job, shards, shards)
    return finishing.write_metadata(job, shards, f"{_name(source)} by data_pipelines.build.")


def _merge(job: Job, part: int, num_parts: int) -> None:
    target = job.file("merged", f"{part:04d}.index")
    if not epath.Path(target).exists():
        dtype = job.source.index_dtype
        write_rows(target, read_rows(job.files("index", "index"), part, num_parts, dtype))


def _about(job: Job) -> dict[str, Any]:
    """What a dataset depends on: the same for the same command over the same files."""
    source = job.source
    files = [(path, epath.Path(path).stat().length) for path in job.paths]
    return {
        "source": _name(source),
        "options": json.loads(json.dumps(_options(source), default=_digest)),
        "name": job.name,
        "shard_bytes": job.shard_bytes,
        "num_files": len(files),
        "files_sha256": hashlib.sha256(json.dumps(files).encode()).hexdigest(),
    }


def _options(source: Source) -> dict[str, Any]:
    """What flags have set, without what `bind` finds in the inputs."""
    fields = [f.name for f in dataclasses.fields(source) if not f.metadata.get("bound")]
    values = dataclasses.asdict(source)
    return {name: values[name] for name in fields}


def _name(source: Source) -> str:
    return type(source).__module__.rpartition(".")[2]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_same(path: epath.Path, about: dict[str, Any], where: str) -> None:
    """ValueError unless the build described at `path` is the one described in `about`."""
    try:
        other = {**read_json(str(path))}
    except (OSError, ValueError, TypeError):
        raise ValueError(f"{where} other files: give an --output that is new or empty") from None
    differing = [key for key in about if about[key] != other.get(key)]
    if differing:
        raise ValueError(
            f"{where} another build, which differs in {', '.join(differing)}: remove it or give "
            "another --output"
        )


def _index(job: Job, number: int) -> None:
    target = job.file("index", f"{number:06d}.index")
    if not epath.Path(target).exists():
        write_rows(target, job.source.index(job.paths[number], number))


def _map(options: PipelineOptions, function: Callable, job: Job, num_tasks: int, *args) -> None:
    """Calls `function(job, task, *args)` for every task on Beam's workers."""
    try:
        with beam.Pipeline(runner=_runner(options), options=options) as pipeline:
            _ = (
                pipeline
                | beam.Create(range(num_tasks))
                | beam.Reshuffle()
                | beam.Map(lambda task: function(job, task, *args))
            )
    except RuntimeError as error:  # a worker's traceback as text
        raise _raised(error) from error


def _runner(options: PipelineOptions) -> Any:
    """Beam's DirectRunner first tries to download a Go program, Prism; this one is in Python."""
    name = options.get_all_options()["runner"]
    return FnApiRunner() if name in (None, "DirectRunner") else name


def _raised(error: RuntimeError) -> BaseException:
    """What a worker raised, in place of Beam's RuntimeError around its traceback."""
    found = _ERROR.findall(_WHERE.sub("", str(error)))
    if "KeyboardInterrupt" in str(error):
        return KeyboardInterrupt()
    for name, message in reversed(found):
        kind = getattr(builtins, name, None)
        if kind is ValueError or (isinstance(kind, type) and issubclass(kind, OSError)):
            return kind(message)
    return error
