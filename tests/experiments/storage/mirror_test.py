"""A folder that is kept in a store: what is copied, in which order, and what two machines do."""

import os

import fsspec
import pytest

from experiments.storage import bucket, mirror
from experiments.storage.mirror import Mirror

NEEDED = ("metrics.jsonl", "clock.json")


@pytest.fixture
def store(monkeypatch):
    """fsspec's memory, empty; `put` lists what is copied into it, `fail` makes that many fail."""
    found = fsspec.filesystem("memory")
    found.store.clear()
    put_file = type(found).put_file
    found.put, found.fail = [], 0

    def put(self, here, there, **kwargs):
        if found.fail:
            found.fail -= 1
            raise ConnectionError("reset by peer")
        found.put.append(there.removeprefix("/run/"))
        put_file(self, here, there, **kwargs)

    monkeypatch.setattr(type(found), "put_file", put)
    monkeypatch.setattr(mirror, "_PAUSES_S", (0.0, 0.0))
    return found


@pytest.fixture
def machine(store, tmp_path):
    """Makes the mirror of a process on a machine, by the machine's name."""

    def begin(name: str) -> Mirror:
        begun = Mirror("memory://run", tmp_path / name)
        begun.bring(NEEDED)
        return begun

    return begin


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_only_what_changed_is_copied_also_by_the_next_process(machine, store):
    first = machine("a")
    for name in ("clock.json", "metrics.jsonl", "plugins/profile/trace"):
        write(first.folder / name, name)
    write(first.folder / ".report.md.1234.partial", "half")
    first.copy()
    assert sorted(store.put) == ["clock.json", "metrics.jsonl", "plugins/profile/trace"]
    assert store.cat("/run/plugins/profile/trace") == b"plugins/profile/trace"

    store.put.clear()
    second = machine("a")
    second.copy()
    assert store.put == []
    write(second.folder / "metrics.jsonl", "longer")
    copied = []
    second.copy(tick=copied.append)
    assert store.put == ["metrics.jsonl"]
    assert sum(copied) == len("longer")


def test_a_machine_takes_what_another_has_written_and_keeps_what_it_wrote_last(machine, store):
    a = machine("a")
    write(a.folder / "clock.json", "1")
    write(a.folder / "metrics.jsonl", "row 1\n")
    a.copy()
    write(a.folder / "metrics.jsonl", "row 1\nrow 2\n")  # and is killed
    assert (machine("a").folder / "metrics.jsonl").read_text() == "row 1\nrow 2\n"

    b = machine("b")
    assert (b.folder / "metrics.jsonl").read_text() == "row 1\n"
    write(b.folder / "metrics.jsonl", "row 1\nother 2\n")
    b.copy()
    assert (machine("a").folder / "metrics.jsonl").read_text() == "row 1\nother 2\n"


def test_what_was_deleted_in_the_store_does_not_come_back(machine, store):
    a = machine("a")
    write(a.folder / "clock.json", "1")
    write(a.folder / "events", "of the run before")
    a.copy()
    store.rm("/run", recursive=True)
    again = machine("a")
    assert again.changed() == {}
    assert not (again.folder / "events").exists()


def test_a_model_has_its_description_only_while_it_is_whole(machine, store):
    a = machine("a")
    for name in ("model.json", "frozen.safetensors", "tokenizer/tokenizer.json"):
        write(a.folder / "model" / name, "old")
    a.copy()
    assert store.put[-1] == "model/model.json"

    (a.folder / "model" / "frozen.safetensors").unlink()
    write(a.folder / "model" / "weights.safetensors", "new")
    write(a.folder / "model.partial" / "model.json", "half")
    store.fail = mirror.TRIES
    with pytest.raises(ConnectionError):
        a.copy()
    assert not store.exists("/run/model/model.json")
    a.copy()
    there = {name.removeprefix("/run/model/") for name in store.find("/run")}
    assert there == {"model.json", "weights.safetensors", "tokenizer/tokenizer.json"}


def test_what_fails_for_a_moment_is_tried_again_and_nothing_copied_twice(machine, store):
    a = machine("a")
    for name in ("b", "c", "clock.json"):
        write(a.folder / name, name)
    store.fail = mirror.TRIES - 1
    a.copy()
    assert store.put == ["b", "c", "clock.json"]
    write(a.folder / "a", "new")
    store.fail = 1
    with pytest.raises(ConnectionError):
        a.copy(tries=1)
    assert set(machine("a").changed()) == {"a"}


def test_a_file_that_grows_while_it_is_copied_is_copied_again(machine, store, monkeypatch):
    a = machine("a")
    write(a.folder / "metrics.jsonl", "row 1\n")
    put_file = type(store).put_file

    def grow(self, here, there, **kwargs):
        put_file(self, here, there, **kwargs)
        with open(here, "a") as file:
            file.write("row 2\n")
        os.utime(here)

    monkeypatch.setattr(type(store), "put_file", grow)
    a.copy()
    monkeypatch.setattr(type(store), "put_file", put_file)
    a.copy()
    assert store.cat("/run/metrics.jsonl") == b"row 1\nrow 2\n"


@pytest.mark.parametrize(
    "value", ["gs://bucket", "gs://bucket/", "gs://B_/run", "s3://bucket/run", "http://a.b/run"]
)
def test_other_addresses_are_refused(value):
    with pytest.raises(bucket.UserError, match="give gs://BUCKET/FOLDER"):
        bucket.check("--workdir", value)


def test_what_a_client_says_becomes_what_to_do():
    assert bucket.check("--workdir", "gs://bucket/runs/x//") == "gs://bucket/runs/x"
    for error, mend in (
        (OSError("Forbidden: b/x\nme@here lacks storage.objects.create"), "storage.objectUser"),
        (
            PermissionError("Anonymous caller has no access, 401"),
            "application-default login",
        ),
        (FileNotFoundError("b/x/o"), "make the bucket first"),
    ):
        said = bucket.reason(error)
        assert mend in said
        assert "\n" not in said
