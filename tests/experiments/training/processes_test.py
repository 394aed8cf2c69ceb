"""Two processes that agree, that end together, and that stop together; one alone needs nothing."""

import contextlib
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments.training import processes
from tests.quick_compiling import FLAGS

ROOT = pathlib.Path(__file__).parents[3]


def start(what: str, folder: pathlib.Path) -> subprocess.Popen:
    command = [
        *(sys.executable, "-m", "launch.local", "--num_processes=2", "--"),
        *(sys.executable, "-m", "tests.experiments.process_worker", what, str(folder)),
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": FLAGS},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """(status, output, errors, seconds, folder) of every way to end, run side by side."""
    began_s = time.monotonic()
    folders = {
        what: tmp_path_factory.mktemp(what)
        for what in ("agree", "fail", "not_shared", "programs", "interrupt", "stop")
    }
    started = {what: start(what, folder) for what, folder in folders.items()}
    pid_file = folders["stop"] / "pid"
    while not (pid_file.exists() and pid_file.read_text()):
        assert started["stop"].poll() is None, started["stop"].communicate()[1]
        time.sleep(0.05)
    os.kill(int(pid_file.read_text()), signal.SIGTERM)
    found = {}
    for what, process in started.items():
        out, errors = process.communicate(timeout=300)
        seconds = time.monotonic() - began_s
        found[what] = (process.returncode, out, errors, seconds, folders[what])
    return found


def test_processes_agree_build_once_and_end_well(ended):
    status, _, errors, _, folder = ended["agree"]
    assert status == 0, errors
    assert len(list(folder.glob("built-by-*"))) == 1


def test_one_that_fails_ends_the_other_which_says_so(ended):
    """Without the shutdown barrier, at which JAX would wait for minutes."""
    status, _, errors, _, _ = ended["fail"]
    assert "[1] error: my rows are bad" in errors
    assert "process 0 of 2 has lost another one" in errors or "another task died" in errors
    assert status in (1, 2)


def test_ctrl_c_ends_both_without_waiting_at_a_barrier(ended):
    status, _, errors, _, _ = ended["interrupt"]
    assert status in (1, 130), errors
    assert "[0] process 0 of 2 is interrupted" in errors
    assert "Traceback" not in errors


def test_a_workdir_that_is_not_shared_is_named_by_all(ended):
    status, _, errors, _, _ = ended["not_shared"]
    assert status == 2
    for index in range(2):
        assert f"[{index}] error: " in errors
    assert "is not seen by processes [1]: give a workdir on a disk" in errors


def test_programs_are_kept_where_all_processes_find_them(ended):
    """Else, on GPUs, those that compile would wait for the one that need not."""
    status, _, errors, _, folder = ended["programs"]
    assert status == 0, errors
    assert not list(folder.rglob(".*"))  # what they tried it with
    (line,) = [line for line in errors.splitlines() if "programs are not kept" in line]
    assert line.startswith("[0] compiled programs are not kept: ")
    assert line.endswith(
        "/of 0 is not the same folder for all processes, "
        "set JAX_COMPILATION_CACHE_DIR to one that is"
    )


def test_sigterm_to_one_stops_all_after_the_same_step(ended):
    status, out, errors, _, _ = ended["stop"]
    assert status == 143, errors
    lines = sorted(line for line in out.splitlines() if "stopped after" in line)
    assert [line[:3] for line in lines] == ["[0]", "[1]"]
    assert lines[0][4:] == lines[1][4:]


def test_none_of_them_hangs(ended):
    assert max(seconds for *_, seconds, _ in ended.values()) < 240  # on a busy machine


def test_half_a_set_of_variables_is_refused(monkeypatch):
    for name in processes.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match=r"set all three, as launch\.local does, or none"):
        processes.start()
    assert not jax.distributed.is_initialized()


def test_a_tpu_host_is_known_by_its_chips_and_libtpu(monkeypatch):
    monkeypatch.setattr(processes.glob, "glob", lambda pattern: [pattern])
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("JAX_PLATFORMS", "")
    assert processes.on_tpu()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not processes.on_tpu()
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: None)
    assert not processes.on_tpu()


@pytest.mark.parametrize(
    ("variables", "only"),
    [
        ({}, False),  # a host of Cloud TPU
        ({"TPU_PROCESS_ADDRESSES": "local", "TPU_WORKER_HOSTNAMES": "localhost"}, True),  # Kaggle
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, False),
        ({"TPU_SKIP_MDS_QUERY": "1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_COORDINATOR_ADDRESS": "b"}, False),
    ],
)
def test_a_tpu_host_that_stands_alone_joins_nobody(variables, only, monkeypatch):
    joined = []
    monkeypatch.setattr(processes, "on_tpu", lambda: True)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: joined.append(True))
    for name in (*processes.VARIABLES, "TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    monkeypatch.delenv("MEGASCALE_COORDINATOR_ADDRESS", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    processes.start()
    assert bool(joined) != only


def test_one_process_alone_needs_nobody(tmp_path):
    values = {"a": jax.numpy.ones(2)}
    assert processes.to_host(values)["a"] is values["a"]
    assert processes.gather({"b": 1}) == [{"b": 1}]
    assert processes.is_first()
    (tmp_path / "here").touch()
    processes.check_shared(tmp_path / "here")
    with pytest.raises(OSError, match="is not seen by processes"):
        processes.check_shared(tmp_path / "not here")
    with pytest.raises(KeyError), processes.ending_together():
        raise KeyError("as it was")


def test_what_lies_on_several_devices_is_brought_to_the_host():
    """A program that takes it would run on all of them, as would its kernels."""
    mesh = jax.make_mesh((8,), ("all",))
    for spec in (jax.P("all"), jax.P()):
        value = jax.device_put(np.arange(8.0, dtype="bfloat16"), jax.NamedSharding(mesh, spec))
        found = processes.to_host({"a": value})["a"]
        assert isinstance(found, np.ndarray)
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)


def test_the_lock_is_held_while_something_is_built_and_given_back(tmp_path):
    def is_free() -> bool:
        with (tmp_path / "new" / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    with contextlib.suppress(KeyError), processes.one_at_a_time(tmp_path / "new"):
        assert not is_free()
        raise KeyError("while building")
    assert is_free()
    with processes.one_at_a_time(tmp_path / "new" / ".lock" / "no folder"):
        pass  # where nothing can be written, nothing can be built twice
