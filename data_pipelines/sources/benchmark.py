"""A benchmark's training examples, written as `experiments.evaluate` asks its queries.

Paper: section on fine-tuning, whose data have "the same format" as pairs. `--input` names a task as
evaluate's `--tasks` does: one of the paper's, whose files lie in `--data_dir`, or `jsonl:PATH`. A
record is the file of a picture or a video with the task's prompt and the answer behind it; metadata
say at which byte of the text the answer begins (`answer_start`), for the loss of `kind="answer"`.

Queries are in no record. There is a record for each caption of a picture and each round of a
dialogue; of the ten answers to a question one alone, the most frequent, which a support example
shows too. The others stand in the metadata as `references`. A clip of a video is a file of its own,
as evaluate reads it. Records about one picture lie together, so that of a slice such as
`train[99%:]`, held out to choose settings by, no picture is trained on but one at its edge.
"""

import argparse
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import ClassVar

from data_pipelines.building.counts import Counts
from data_pipelines.building.near_duplicates import hash64
from data_pipelines.errors import BadRecord
from data_pipelines.records import ANSWER_START, Document
from data_pipelines.sources.media_files import checked_picture, checked_video
from data_pipelines.sources.source import Source
from data_pipelines.sources.tar_members import MAX_MEMBER_BYTES
from flamingo_jax.eval.task import Example, Task
from flamingo_jax.eval.tasks import catalog
from flamingo_jax.prompts import VideoPart

_FOLDERS = "", "Annotations"  # of a task's own files, its pictures and videos aside
_ALL_FILES = 1 << 30
_OF_ID = (1 << 32) - 1  # bits of a record's place that tell records about one picture apart


@dataclasses.dataclass(frozen=True)
class Benchmark(Source):
    """One task, whose files are read together (VQAv2's take 2 GB of memory)."""

    files_per_unit: ClassVar[int] = _ALL_FILES

    name: str  # as evaluate's --tasks has it
    data_dir: str | None = None
    caption_template: str = "Output: {}"
    licence: str = "unknown"

    def task(self) -> Task:
        """TaskError, a ValueError, where a file is missing or another benchmark's."""
        return _read(self.name, self.data_dir, self.caption_template)

    def items(self, paths: Sequence[str]) -> Iterator[Example]:
        del paths  # the task knows its files
        yield from self.task().training_examples()

    def convert(self, item: Example, counts: Counts) -> Document:
        del counts  # an example whose picture is bad is dropped as a whole
        task = self.task()
        record = f"{task.name}/{item.id}"
        if not item.answer.strip():
            raise BadRecord("no_answer", f"{record}: its answer is empty")
        prompt = task.template.query(item.fields)
        return Document(
            id=record,
            text=prompt + task.template.continuation(item.answer),
            media_positions=(0,),
            media=(_medium(item),),
            metadata={
                "source": "benchmark",
                "task": task.name,
                "licence": self.licence,
                ANSWER_START: len(prompt.encode(errors="surrogatepass")),
                "references": list(item.references),
            },
        )

    def place(self, document: Document) -> int:
        """By its picture first, so that no other slice of the dataset has it too."""
        return hash64(document.media_ids[0]) & ~_OF_ID | hash64(document.id) & _OF_ID


def _medium(example: Example) -> bytes:
    """Its file, where evaluate could read it; BadRecord or BadMedia where not."""
    path = example.path
    try:
        if path.stat().st_size > MAX_MEMBER_BYTES:
            raise BadRecord("too_large", f"{path} has more than {MAX_MEMBER_BYTES} bytes")
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadRecord("not_found", f"{path}: no such file") from None
    except OSError as error:
        raise BadRecord("unreadable", f"{path}: {error}") from error
    check = checked_video if isinstance(example.media, VideoPart) else checked_picture
    return check(data, str(path))


@functools.lru_cache(maxsize=1)
def _read(name: str, data_dir: str | None, caption_template: str) -> Task:
    """Kept, for every record asks for it."""
    folder = None if data_dir is None else pathlib.Path(data_dir)
    return catalog.read(name, folder, caption_template)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `--source=benchmark`, whose `--input` is a task."""
    add = parser.add_argument
    add("--data_dir", metavar="DIR", help="folder of the benchmarks' files, as evaluate's")
    template = "of captions and labels: the model's own, as its model.json has it"
    add("--caption_template", default="Output: {}", help=f"{template}; default: 'Output: {{}}'")
    add("--licence", default="unknown", help="kept in the records' metadata")


def source(args: argparse.Namespace) -> Benchmark:
    """The source that the flags describe; ValueError for a task that cannot be trained on."""
    if args.data_dir is not None and "://" in args.data_dir:
        raise ValueError(f"--data_dir={args.data_dir}: give a folder: benchmarks are read there")
    found = Benchmark(args.input, args.data_dir, args.caption_template, args.licence)
    _read.cache_clear()  # its files may be others by now
    if not any(True for _ in found.task().training_examples()):
        raise ValueError(f"--input={args.input}: no training examples, only queries")
    return found


def input_files(args: argparse.Namespace) -> tuple[str, ...]:
    """The task's own files, by which a benchmark that has changed is told from the one before."""
    if args.input.startswith(catalog.JSONL):
        return (str(pathlib.Path(args.input.removeprefix(catalog.JSONL)).expanduser()),)
    folders = [pathlib.Path(args.data_dir, args.input, name) for name in _FOLDERS]
    listed = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return tuple(sorted(str(path) for path in listed if path.is_file()))
