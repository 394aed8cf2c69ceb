"""A conversion that is killed anywhere goes on to the same chunks, whichever source it reads."""

import dataclasses
import json
import pathlib

import pytest

from data_pipelines import build, commands
from data_pipelines.building import staging
from data_pipelines.building.staging import Job
from data_pipelines.sources.benchmark import Benchmark
from data_pipelines.sources.coco import Coco
from data_pipelines.sources.mmc4 import Mmc4
from data_pipelines.sources.obelics import Obelics
from data_pipelines.sources.webdataset import WebDataset
from data_pipelines.sources.webvid import WebVid
from tests.data_pipelines.broken_inputs_test import SOURCES
from tests.data_pipelines.sources.pairs_test import webvid_table
from tests.data_pipelines.tiny_records import picture
from tests.data_pipelines.tiny_video import video


class Killed(BaseException):
    """Not an Exception: nothing may catch it."""


def webvid(path: pathlib.Path) -> None:
    (path.parent / "1.mp4").write_bytes(video(3))
    rows = [{"videoid": "1", "name": f"clip {i}"} for i in range(9)]
    webvid_table(path, [*rows[:4], {"videoid": "2", "name": "absent"}, *rows[4:]])


def questions(path: pathlib.Path) -> None:
    names = [f"{i}.png" for i in range(10)]
    for number, name in enumerate(names[1:]):  # the first is absent
        (path.parent / name).write_bytes(picture(number))
    lines = [
        {"id": name, "split": "query" if i == 9 else "support", "image": name, "label": f"{i % 2}"}
        for i, name in enumerate(names)
    ]
    lines.append({"id": "again", "split": "support", "image": "1.png", "label": "1"})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


KINDS = {
    "mmc4": ("jsonl", Mmc4),
    "webdataset": ("tar", WebDataset),
    "obelics": ("parquet", Obelics),
    "coco": ("json", Coco),
    "webvid": ("csv", WebVid),
    "benchmark": ("lines", Benchmark),
}
WRITERS = {kind: write for kind, (write, _) in SOURCES.items()} | {
    "csv": webvid,
    "lines": questions,
}


def files(job: Job) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in pathlib.Path(job.folder, "chunks").iterdir()}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_killed_and_run_again(tmp_path, monkeypatch, name):
    kind, make = KINDS[name]
    path = tmp_path / f"input.{kind}"
    WRITERS[kind](path)
    first = {"media": str(tmp_path), "name": f"jsonl:{path}"}
    source = make(*(first[field.name] for field in dataclasses.fields(make) if field.name in first))

    def job(folder: str) -> Job:
        for part in ("chunks", "units"):
            (tmp_path / folder / part).mkdir(parents=True)
        return Job(source, (str(path),), str(tmp_path / folder), "x", 3, 1 << 20)

    whole, cut = job("whole"), job("cut")
    staging.stage(whole, 0)
    convert, calls = make.convert, 0

    def dying(self, item, counts):
        nonlocal calls
        calls += 1
        if calls in (2, 5, 6, 12):
            raise Killed
        return convert(self, item, counts)

    monkeypatch.setattr(make, "convert", dying)
    for _ in range(5):
        try:
            staging.stage(cut, 0)
        except Killed:
            continue
        break
    assert pathlib.Path(cut.folder, "units", "000000.done").exists()
    assert files(cut) == files(whole)
    assert len(files(whole)) == 4 * 4
    assert calls < 10 + 3 * 4  # what was whole was not converted again


@pytest.mark.parametrize("name", sorted({*KINDS} - {"benchmark"}))
def test_flags_describe_the_source(tmp_path, name):
    parser = commands.Parser()
    module = build.SOURCES[name]
    module.add_flags(parser)
    needs_media = name in ("coco", "webvid")
    args = parser.parse_args([f"--media={tmp_path}"] if needs_media else [])
    assert isinstance(module.source(args), KINDS[name][1])
    if name != "webdataset":
        args = parser.parse_args([f"--media={tmp_path}/nowhere"])
        with pytest.raises(ValueError, match="no such folder"):
            module.source(args)
