"""A run in a bucket: stopped, lost with its machine, gone on with, and its model asked for.

In this process, with a language model; `mirror_test` has what is copied when.
"""

import pathlib
import shutil
import signal

import fsspec
import numpy as np
import pytest

from experiments import cli
from experiments.configs import language_model
from experiments.pretraining import language_model_stage, stage_run
from experiments.storage import given_model, mirror
from experiments.storage.workdir import Workdir
from experiments.training import processes
from flamingo_jax import model_directory
from flamingo_jax.train import metrics
from flamingo_jax.train.checkpoint import Checkpoints
from flamingo_jax.weights.files import checkpoint_files, tensor_file
from tests import buckets
from tests.train import checkpoint_test

STEPS = 6


@pytest.fixture(scope="module")
def store():
    """A bucket, `gs://bucket`, and fsspec's view of it."""
    with buckets.serve("bucket"):
        yield fsspec.filesystem("gs", use_listings_cache=False)


@pytest.fixture(autouse=True)
def lose_machine(tmp_path_factory, monkeypatch):
    """Deletes what this machine has of runs; data stay. Signals end tests as before."""
    cache = tmp_path_factory.getbasetemp() / "bucket_run_cache"
    monkeypatch.setenv("FLAMINGO_JAX_CACHE", str(cache))
    monkeypatch.setattr(mirror, "_PAUSES_S", (0.0,))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield lambda: shutil.rmtree(cache / "workdirs", ignore_errors=True)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(place: str) -> int:
    config = language_model.micro()
    config.steps, config.log_every, config.checkpoint_every = STEPS, 1, 2
    return stage_run.command(language_model_stage, config, place)


def stop_after(monkeypatch, step: int) -> None:
    stopping = lambda self, at: signal.SIGTERM if at == step else None  # noqa: E731
    monkeypatch.setattr(processes.StopRequest, "after", stopping)


def losses(path: pathlib.Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in metrics.read_rows(path)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The workdir of the same run on disk, which nothing stops."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.getbasetemp() / "bucket_run_cache"
        patch.setenv("FLAMINGO_JAX_CACHE", str(cache))
        assert run(str(folder)) == 0
    return folder


@pytest.mark.slow
def test_a_run_goes_on_from_the_bucket_alone(store, lose_machine, whole, tmp_path, monkeypatch):
    place = "gs://bucket/runs/a=1e-4,b.c=+2"  # as a sweep names its points
    there = place.removeprefix("gs://")
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert run(place) == 128 + signal.SIGTERM
    assert store.exists(f"{there}/checkpoints/3/commit_success.txt")

    store.rm_file(f"{there}/checkpoints/3/commit_success.txt")  # as of a save that a kill cut short
    lose_machine()
    assert run(place) == 0

    store.get_file(f"{there}/metrics.jsonl", str(tmp_path / "metrics.jsonl"))
    assert losses(tmp_path / "metrics.jsonl") == losses(whole / "metrics.jsonl")
    model = given_model.folder("--model", place)
    for path in (whole / "model").rglob("*.*"):
        assert (model / path.relative_to(whole / "model")).read_bytes() == path.read_bytes()
    checkpoint = given_model.folder("--model", f"{place}/checkpoints/{STEPS}")
    assert (checkpoint / "weights.safetensors").read_bytes() == (
        model / "weights.safetensors"
    ).read_bytes()
    assert {"config.json", "clock.json", "report.md", "report.json", "report.png"} <= {
        name.removeprefix(f"{there}/") for name in store.find(there)
    }


def test_a_damaged_checkpoint_is_set_aside_there_too(store):
    place = "gs://bucket/runs/damaged/checkpoints"
    checkpoints = Checkpoints(place)
    for step in (1, 2):
        checkpoints.save(checkpoint_test.make_state(step), checkpoint_test.place(step))
    checkpoints.close()
    for path in store.find(f"{place}/2/state"):
        store.pipe_file(path, b"")
    checkpoints = Checkpoints(place)
    assert checkpoints.restore(checkpoint_test.make_state(0))[1] == checkpoint_test.place(1)
    checkpoints.save(checkpoint_test.make_state(2), checkpoint_test.place(2))
    checkpoints.close()
    assert Checkpoints(place).restore(checkpoint_test.make_state(0))[1] == checkpoint_test.place(2)
    assert store.isdir(f"{place}/unreadable-2")


def test_a_checkpoint_there_is_a_model_unless_it_is_damaged(store, tmp_path):
    place, there = "gs://bucket/runs/going", "bucket/runs/going"
    checkpoints = Checkpoints(f"{place}/checkpoints")
    for step in (1, 2):
        checkpoints.save(checkpoint_test.make_state(step), checkpoint_test.place(step))
    checkpoints.close()
    with pytest.raises(cli.UserError, match="runs/going/untrained holds no model"):
        given_model.folder("--model", f"{place}/checkpoints/1")
    tensor_file.save(tmp_path / "weights", {"map": np.ones(2, np.float32)})
    store.put_file(str(tmp_path / "weights"), f"{there}/untrained/weights.safetensors")
    store.pipe_file(f"{there}/untrained/model.json", b"{}")
    model = given_model.folder("--model", f"{place}/checkpoints/2")
    found = checkpoint_files.tensors(model / "weights.safetensors")
    want = checkpoint_test.make_state(2).trainable["resampler"]["norm"]["scale"]
    assert sorted(found) == ["map", "resampler/norm/scale"]
    np.testing.assert_array_equal(found["resampler/norm/scale"], want)
    for path in store.find(f"{there}/checkpoints/1/state"):
        store.pipe_file(path, b"")
    with pytest.raises(cli.UserError, match=r"checkpoints/1: it cannot be read .* another step"):
        given_model.folder("--model", f"{place}/checkpoints/1")


def begin(workdir: Workdir) -> None:
    """As a run does, with a clock of no sense."""
    workdir.bring(["clock.json"])
    workdir.folder.mkdir(parents=True, exist_ok=True)
    (workdir.folder / "clock.json").write_text("1")
    workdir.share("clock.json")


def test_copies_that_fail_end_no_run_but_its_end(store, monkeypatch, capsys):
    place = "gs://bucket/runs/unlucky"

    def refused(*args, **kwargs):
        raise ConnectionError("reset by peer")

    def unlucky(workdir: Workdir) -> None:
        with workdir:
            begin(workdir)
            patch.setattr(store, "put_file", refused)
            for text in ("row 1", "row 1, row 2"):
                (workdir.folder / "metrics.jsonl").write_text(text)
                workdir.keep()
                workdir._copying.result()

    def wrong(workdir: Workdir) -> None:
        with workdir:
            begin(workdir)
            raise cli.UserError("my own")

    workdir = Workdir.given("--workdir", place)
    with monkeypatch.context() as patch, pytest.raises(cli.UserError) as caught:
        unlucky(workdir)
    assert "by copy failed 2: reset by peer" in capsys.readouterr().err
    assert f"1 files (metrics.jsonl, ...) are whole in {workdir.folder} alone" in str(caught.value)
    assert not store.exists("bucket/runs/unlucky/metrics.jsonl")

    with pytest.raises(cli.UserError, match="my own"):
        wrong(Workdir.given("--workdir", place))
    assert store.cat("bucket/runs/unlucky/metrics.jsonl") == b"row 1, row 2"


def test_a_bucket_that_is_not_there_is_said_before_anything_is_made(store):
    with (
        pytest.raises(cli.UserError, match=r"no such bucket .* make the bucket first"),
        Workdir.given("--workdir", "gs://another/runs/mine") as workdir,
    ):
        begin(workdir)


def test_a_model_is_copied_once_and_again_where_it_changed(store, monkeypatch):
    place, there = "gs://bucket/models/small", "bucket/models/small"
    with pytest.raises(cli.UserError, match=r"--model=gs://bucket/models/small holds no model"):
        given_model.folder("--model", place)
    store.pipe_file(f"{there}/checkpoints/3/commit_success.txt", b"")
    with pytest.raises(cli.UserError, match="holds checkpoints and no model yet"):
        given_model.folder("--model", place)
    store.pipe_file(f"{there}/model/model.json", b"{}")
    store.pipe_file(f"{there}/model/tokenizer/tokenizer.json", b"old")

    brought = []
    get_file = store.get_file

    def get(name, here, **kwargs):
        brought.append(name.removeprefix(f"{there}/model/"))
        get_file(name, here, **kwargs)
        if brought[-1] != "model.json" and brought.count(brought[-1]) == 2:
            raise ConnectionError("reset by peer")

    monkeypatch.setattr(store, "get_file", get)
    for _ in range(2):
        folder = given_model.folder("--model", place)
    assert sorted(brought) == ["model.json", "tokenizer/tokenizer.json"]

    store.pipe_file(f"{there}/model/tokenizer/tokenizer.json", b"new")
    with pytest.raises(cli.UserError, match="reset by peer"):
        given_model.folder("--model", place)
    assert (folder / "tokenizer/tokenizer.json").read_bytes() == b"old"
    assert given_model.folder("--model", place) == folder
    assert (folder / "tokenizer/tokenizer.json").read_bytes() == b"new"
    with pytest.raises(model_directory.ModelDirectoryError, match="is an address: copy the folder"):
        model_directory.load(place)
