"""The build command: the same dataset however the input is cut, killed or spread over workers."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import tensorflow_datasets as tfds
from apache_beam.options.pipeline_options import PipelineOptions

from data_pipelines import build, commands, folder_lock, records
from data_pipelines.building import build_pipeline, finishing, staging
from data_pipelines.building.counts import Counts
from data_pipelines.building.staging import Job
from data_pipelines.reading import bucket_files
from data_pipelines.reading.versions import newest_versions
from data_pipelines.sources.html import Html
from tests import buckets
from tests.data_pipelines.page_files import page, picture, write_html


class Killed(BaseException):
    """Not an Exception: nothing may catch it."""


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def command(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    """Exit status, and what went to stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["build", *words])
    status = 0
    try:
        commands.run(build.main)
    except SystemExit as error:
        status = error.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> pathlib.Path:
    """Twelve different pages, an equal one, a similar one, and a logo on all of them."""
    folder = tmp_path_factory.mktemp("site")
    write_html(folder, 12)
    (folder / "logo.png").write_bytes(picture(999, "PNG"))
    for path in sorted(folder.glob("*.html")):
        html = path.read_text().replace("<h1>", "<p><img src=logo.png></p><h1>")
        path.write_text(html)
    (folder / "equal.html").write_text((folder / "page3.html").read_text().upper().lower())
    similar = (folder / "page4.html").read_text().replace("Title of page", "A title of page")
    (folder / "similar.html").write_text(similar)
    (folder / "logo_only.html").write_bytes(page(77, ["logo.png"]))
    return folder


def job(site: pathlib.Path, folder: pathlib.Path, chunk: int = 500, unit: int = 256) -> Job:
    class Small(Html):
        files_per_unit = unit

    Small.__module__ = Html.__module__
    paths = tuple(sorted(str(path) for path in site.glob("*.html")))
    return Job(Small(), paths, f"{folder}.unfinished", "pages", chunk, 1 << 20)


def in_process(function, job: Job, num_tasks: int, *args) -> None:
    """In place of Beam."""
    for task in range(num_tasks):
        function(job, task, *args)


def build_in_process(job: Job, each=in_process) -> Counts:
    for name in build_pipeline._FOLDERS:
        pathlib.Path(job.folder, name).mkdir(parents=True, exist_ok=True)
    return build_pipeline._steps(job, each)


def test_the_command(site, tmp_path, monkeypatch, capsys):
    output = tmp_path / "pages" / "1.0.0"
    words = ("--source=html", f"--input={site}/*.html", f"--output={output}")
    status, out, _ = command(monkeypatch, capsys, *words)
    assert status == 0
    assert "records: 15 read, 12 kept, 3 dropped" in out
    counts = json.loads((output / "counts.json").read_text())
    assert counts["records"]["dropped"] == {
        "equal_text": 1, "no_media_left": 1, "similar_text": 1
    }  # fmt: skip
    assert set(counts["examples"]) >= set(counts["records"]["dropped"])
    assert counts["media"]["dropped"]["on_many_pages"] == 13
    for table in (counts["records"], counts["media"]):
        assert table["read"] == table["kept"] + sum(table["dropped"].values())
    loaded = tfds.load("pages", data_dir=tmp_path, split="train")
    documents = [records.from_example(example) for example in tfds.as_numpy(loaded)]
    assert len({document.id for document in documents}) == 12
    for document in documents:
        records.validate(document)
        assert len(document.metadata["media"]) == len(document.media) == 2
    assert tfds.builder_from_directory(output).info.splits["train"].num_examples == 12
    assert not pathlib.Path(f"{output}.unfinished").exists()

    before = files(output)
    assert command(monkeypatch, capsys, *words)[1] == out  # it is there: nothing is done
    status, _, err = command(monkeypatch, capsys, *words, "--language=de")
    assert (status, err.count("\n")) == (2, 1)
    assert "holds another build, which differs in options" in err
    assert files(output) == before


def test_neither_chunks_nor_units_nor_beam_change_the_dataset(site, tmp_path):
    whole = job(site, tmp_path / "a")
    build_in_process(whole)
    expected = files(pathlib.Path(whole.folder, "dataset"))
    for chunk, unit in ((1, 1), (2, 5), (3, 256)):
        other = job(site, tmp_path / f"{chunk}", chunk, unit)
        build_in_process(other)
        assert files(pathlib.Path(other.folder, "dataset")) == expected
    parallel = job(site, tmp_path / "parallel", 4)
    build_pipeline.run(parallel, str(tmp_path / "parallel"), PipelineOptions([]))
    done = files(tmp_path / "parallel")
    assert done.pop("build.json")
    assert done == expected


@pytest.mark.parametrize("tasks", range(1, 9))
def test_killed_between_any_two_tasks_and_run_again(site, tmp_path, tasks, monkeypatch):
    whole, cut = job(site, tmp_path / "whole", 4, 8), job(site, tmp_path / "cut", 4, 8)
    build_in_process(whole)
    left, conversions = tasks, 0

    def dying(function, job, num_tasks, *args):
        nonlocal left
        for task in range(num_tasks):
            left -= 1
            if left == 0:
                raise Killed
            function(job, task, *args)

    convert = Html.convert

    def sometimes_dying(self, item, counts):
        nonlocal conversions
        conversions += 1
        if conversions == 3 * tasks:
            raise Killed
        return convert(self, item, counts)

    monkeypatch.setattr(Html, "convert", sometimes_dying)
    for _ in range(3):
        try:
            counts = build_in_process(cut, dying)
        except Killed:
            continue
        break
    assert files(pathlib.Path(cut.folder, "dataset")) == files(
        pathlib.Path(whole.folder, "dataset")
    )
    assert counts.kept == 12


def test_a_page_whose_pictures_all_go_does_not_drive_out_its_like(tmp_path):
    """Of two similar pages one has the logo only; whichever hash is smaller, the other stays."""
    site = tmp_path / "site"
    write_html(site, 12)
    for number in range(12):
        (site / f"logo{number}.png").write_bytes(picture(999, "PNG"))
        html = (site / f"page{number}.html").read_text()
        for n in range(2):
            html = html.replace(f"images/{number}-{n}.jpg", f"logo{number}.png")
        (site / f"twin{number}.html").write_text(html)
    plan = job(site, tmp_path / "out")
    counts = build_in_process(plan)
    assert counts.kept == 12
    assert counts.dropped == {"no_media_left": 12}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input={tmp}/none/*.html"], "no such file"),
        (["--input={site}/*.html", "--launguage=de"], "unknown argument --launguage=de"),
        (["--input={site}/*.html", "--records_per_chunk=0"], "0: want a whole number, 1 or more"),
        (["--input={site}/*.html", "--records_per_chunk=x"], "x: want a whole number, 1 or more"),
        (["--input={site}/*.html", "--direct_num_workers=x"], "invalid int value: 'x'"),
        (
            ["--input", "{site}/page1.html", "{site}/page2.html"],
            "put the pattern of --input in quo",
        ),
        (["--input={site}"], "is a folder: give a pattern, such as '{site}/*'"),
        (["--input={site}/*.html", "--output={tmp}/full"], "holds other files"),
        (["--input={site}/logo_only.html", "--language=de"], "1 dropped; 1 other_language ("),
        (["--input={site}/page1.html", "--source=warc"], "there is none in the input"),
        ([], "--input"),
        (["--input={site}/*.html", "--filters={{"], "want a JSON object"),
    ],
)
def test_what_a_user_can_mend_is_one_line(site, tmp_path, monkeypatch, capsys, words, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    words = [word.format(tmp=tmp_path, site=site) for word in words]
    message = message.format(site=site)
    output = f"--output={tmp_path}/out"
    status, _, err = command(monkeypatch, capsys, "--source=html", output, *words)
    assert status == 2
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        err.splitlines()[-1]
    ]
    assert message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
    assert files(tmp_path / "full") == {"mine.txt": b"keep"}


def test_another_builds_beginning_is_not_gone_on_with(site, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    plan = job(site, output)
    pathlib.Path(plan.folder).mkdir()
    words = ("--source=html", f"--input={site}/*.html", f"--output={output}")
    for said, told in (("{}", "the beginning of another build"), ("[]", "other files")):
        pathlib.Path(plan.folder, "build.json").write_text(said)
        status, _, err = command(monkeypatch, capsys, *words)
        assert status == 2
        assert told in err


def test_chunks_of_another_size_are_not_gone_on_with(site, tmp_path, monkeypatch, capsys):
    words = ("--source=html", f"--input={site}/*.html", f"--output={tmp_path}/out")

    def dying(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(build_pipeline.finishing, "write_metadata", dying)
        assert command(monkeypatch, capsys, *words, "--records_per_chunk=4")[0] == 2
    before = files(tmp_path)
    status, _, err = command(monkeypatch, capsys, *words, "--records_per_chunk=8")
    assert status == 2
    assert "the beginning of another build, which differs in records_per_chunk" in err
    assert files(tmp_path) == before
    _, out, _ = command(monkeypatch, capsys, *words, "--records_per_chunk=4")
    assert "records: 15 read, 12 kept" in out
    # a finished dataset is the same whatever the chunks were
    assert command(monkeypatch, capsys, *words, "--records_per_chunk=8")[1] == out


def test_what_no_reader_foresaw_costs_one_record(site, tmp_path, monkeypatch, caplog):
    convert = Html.convert

    def failing(self, item, counts):
        if item.place.endswith(("page3.html", "page5.html")):
            raise ZeroDivisionError("by zero")
        return convert(self, item, counts)

    monkeypatch.setattr(Html, "convert", failing)
    counts = build_in_process(job(site, tmp_path / "out"))
    assert counts.dropped["unexpected_error"] == 2
    assert counts.kept == 11  # for the equal of page 3 stays in its place
    assert "page3.html" in counts.examples["unexpected_error"]
    assert "ZeroDivisionError: by zero" in counts.examples["unexpected_error"]
    (line,) = caplog.messages
    assert "page3.html" in line
    assert len(line) < 600


def test_a_full_disk_is_one_line_and_leaves_whole_files_only(site, tmp_path, monkeypatch, capsys):
    written = 0
    open_whole = staging.open_whole

    def full(path):
        nonlocal written
        written += 1
        if written == 3:
            raise OSError(28, "No space left on device")
        return open_whole(path)

    monkeypatch.setattr(staging, "open_whole", full)
    words = ("--source=html", f"--input={site}/*.html", f"--output={tmp_path}/out",
             "--records_per_chunk=4")  # fmt: skip
    status, _, err = command(monkeypatch, capsys, *words)
    assert status == 2
    assert "No space left on device" in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("*.partial"))
    status, out, _ = command(monkeypatch, capsys, *words)
    assert (status, "12 kept" in out) == (0, True)


def test_two_builds_of_one_folder_do_not_meet(site, tmp_path, monkeypatch, capsys):
    words = ("--source=html", f"--input={site}/page1.html", f"--output={tmp_path}/out")
    (tmp_path / "out.unfinished").mkdir()
    lock = folder_lock.take(tmp_path / "out.unfinished")
    status, _, err = command(monkeypatch, capsys, *words)
    assert status == 2
    assert err.endswith(f"another process builds in {tmp_path}/out.unfinished: wait for its end, "
                        "or stop it\n")  # fmt: skip
    assert not (tmp_path / "out").exists()
    os.close(lock)
    (tmp_path / "out.unfinished").rmdir()
    assert command(monkeypatch, capsys, *words)[0] == 0


@pytest.mark.parametrize("kind", ["OSError", "PermissionError", "FileNotFoundError"])
def test_a_fault_of_the_disk_in_a_worker_is_one_of_the_disk(kind):
    text = f"Traceback ...\n{kind}: [Errno 13] /out/a [while running 'Map(<lambda>)']"
    raised = build_pipeline._raised(RuntimeError(text))
    assert isinstance(raised, OSError)
    assert str(raised) == "[Errno 13] /out/a"
    other = RuntimeError("Traceback ...\nKeyError: 'a'")
    assert build_pipeline._raised(other) is other


@pytest.mark.parametrize("name", ["猫", "Größe-2"])
def test_a_folder_may_have_any_name(site, tmp_path, monkeypatch, capsys, name):
    output = tmp_path / name / "1.0.0"
    words = ("--source=html", f"--input={site}/page1.html", f"--output={output}")
    status, _, err = command(monkeypatch, capsys, *words)
    assert status == 0, err
    assert tfds.builder_from_directory(output).info.splits["train"].num_examples == 1


def test_ctrl_c_in_a_worker_is_a_word(site, tmp_path, monkeypatch, capsys, caplog):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(staging, "open_whole", interrupted)
    words = ("--source=html", f"--input={site}/*.html", f"--output={tmp_path}/out")
    status, _, err = command(monkeypatch, capsys, *words)
    assert (status, err.splitlines()[-1]) == (130, "interrupted")
    assert "Traceback" not in caplog.text


def test_help_says_nothing_else():
    done = subprocess.run(
        [sys.executable, "-m", "data_pipelines.build", "--help"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "example: python -m data_pipelines.build" in done.stdout


def test_several_shards_are_one_dataset(tmp_path):
    site = tmp_path / "site"
    write_html(site, 12)
    plan = job(site, tmp_path / "out")
    small = Job(plan.source, plan.paths, plan.folder, "pages", 500, 20_000)
    build_in_process(small)
    folder = pathlib.Path(small.folder, "dataset")
    builder = tfds.builder_from_directory(folder)
    shards = builder.info.splits["train"].shard_lengths
    assert len(shards) > 1
    assert sum(shards) == 12
    assert len(list(builder.as_dataset(split="train"))) == 12
    shutil.rmtree(folder)


def test_into_a_bucket_the_same_files_where_nothing_is_seen_before_the_end(
    site, tmp_path, monkeypatch, capsys
):
    words = ["--source=html", f"--input={site}/*.html"]
    assert command(monkeypatch, capsys, *words, f"--output={tmp_path}/pages/1.0.0")[0] == 0
    wanted = {f"pages/1.0.0/{n}": data for n, data in files(tmp_path / "pages/1.0.0").items()}
    assert any("record_index" in name for name in wanted)

    def stopped(*_):
        raise OSError("as by a kill")

    with buckets.serve("bucket") as bucket:
        words.append(f"--output={bucket}/pages/1.0.0")
        with monkeypatch.context() as patch:
            patch.setattr(finishing, "write_metadata", stopped)
            assert command(monkeypatch, capsys, *words)[0] == 2
        assert any("1.0.0/pages-train" in name for name in bucket_files.names(bucket))
        assert newest_versions(f"{bucket}/pages") == []
        for _ in range(2):  # the second time it is there
            status, out, err = command(monkeypatch, capsys, *words)
            assert status == 0, err
            assert "records: 15 read, 12 kept, 3 dropped" in out
            names = bucket_files.names(bucket)
            assert {name: bucket_files.read(f"{bucket}/{name}") for name in names} == wanted
        status, _, err = command(monkeypatch, capsys, *words, "--language=de")
        assert (status, "holds another build" in err) == (2, True)
        words = ["--source=html", f"--input={site}/page3.html", f"--output={bucket}/none"]
        status, _, err = command(monkeypatch, capsys, *words, "--language=de")
        assert (status, "no record was kept" in err) == (2, True)
        assert set(bucket_files.names(bucket)) == set(wanted)
