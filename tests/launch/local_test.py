"""Several processes as one: who is who, what is printed, one's failure, signals. No jax in them."""

import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest

from launch import local

ROOT = pathlib.Path(__file__).parents[2]


def start(*command: str, num_processes: int = 3) -> subprocess.Popen:
    own = [sys.executable, "-m", "launch.local", f"--num_processes={num_processes}"]
    return subprocess.Popen(
        [*own, "--", *command],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def shell(script: str, **kwargs) -> subprocess.Popen:
    return start("sh", "-c", script, **kwargs)


def test_dry_run_prints_commands_that_a_shell_takes_as_they_are(capsys):
    command = ["python", "-m", "experiments.train", "--workdir=runs/a b"]
    own = ["--num_processes=2", "--port=1234", "--dry_run", "--"]
    assert local.main([*own, *command]) == 0
    lines = capsys.readouterr().out.splitlines()
    for index, line in enumerate(lines):
        *variables, python, dash_m, module, workdir = shlex.split(line)
        assert [python, dash_m, module, workdir] == command
        assert variables == [
            "JAX_PLATFORMS=cpu",
            "JAX_COORDINATOR_ADDRESS=127.0.0.1:1234",
            "JAX_NUM_PROCESSES=2",
            f"JAX_PROCESS_ID={index}",
        ]
    assert len(lines) == 2


def test_every_process_is_told_who_it_is_and_every_line_who_wrote_it():
    process = shell('echo "I am $JAX_PROCESS_ID of $JAX_NUM_PROCESSES"; echo oh >&2')
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert sorted(out.splitlines()) == [f"[{i}] I am {i} of 3" for i in range(3)]
    assert sorted(errors.splitlines()) == [f"[{i}] oh" for i in range(3)]


def test_one_that_dies_ends_the_others_with_a_message_and_its_status(monkeypatch, capfd):
    monkeypatch.setattr(local, "GRACE_S", 0.5)
    script = 'if [ "$JAX_PROCESS_ID" = 1 ]; then kill -9 $$; fi; exec sleep 100'
    began_s = time.monotonic()
    assert local.main(["--num_processes=3", "--", "sh", "-c", script]) == 137
    assert time.monotonic() - began_s < 10
    errors = capfd.readouterr().err
    assert "process 1 ended with status 137 (SIGKILL): the others end too" in errors
    assert "2 still there after" in errors


def test_the_first_failure_is_the_status(monkeypatch):
    monkeypatch.setattr(local, "GRACE_S", 5.0)
    script = 'if [ "$JAX_PROCESS_ID" = 0 ]; then exit 2; fi; sleep 1; exit 7'
    assert local.main(["--num_processes=2", "--", "sh", "-c", script]) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_every_process_and_their_status_comes_back(number):
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo saved; exit 143' {name}; echo ready; while :; do sleep 0.05; done"
    process = shell(script, num_processes=2)
    for _ in range(2):
        assert process.stdout.readline().endswith("ready\n")
    process.send_signal(number)
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert sorted(out.splitlines()) == ["[0] saved", "[1] saved"]
    assert not errors


def test_a_progress_bar_is_lines_here():
    process = shell(r"printf '\rhalf\rwhole\n\n'", num_processes=1)
    out, _ = process.communicate(timeout=30)
    assert out.splitlines() == ["[0] half", "[0] whole"]


def test_nothing_is_left_behind():
    process = shell("echo $$; exec sleep 100", num_processes=2)
    pids = [int(process.stdout.readline().split()[1]) for _ in range(2)]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--num_processes=2"], "no command"),
        (["--num_processes=0", "--", "true"], "'0' is no whole number of 1 or more"),
        (["--", "true"], "--num_processes"),
        (
            ["--num_processes=2", "--", "no-such-command"],
            "no-such-command cannot be started (No such file or directory): write a program",
        ),
        (
            ["--num_processes=2", "--", str(ROOT / "README.md")],
            "README.md cannot be started (Permission denied): write a program",
        ),
        (["--num_processes=2", "--port=0", "--", "true"], "'0' is no whole number from 1 to 65535"),
        (["--num_processes=2", "--port=65536", "--", "true"], "'65536' is no whole number from 1"),
        (["--num_processes=2", "--port=http", "--", "true"], "'http' is no whole number from 1"),
        (["--num=2", "--", "true"], "--num_processes"),
    ],
)
def test_misuse_is_one_line_and_status_2(arguments, words, capfd):
    try:
        status = local.main(arguments)
    except SystemExit as end:
        status = end.code
    assert status == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_in_use_is_refused_before_anything_starts(host, capfd):
    with socket.socket() as other:
        other.bind((host, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as end:
            local.main(["--num_processes=2", f"--port={port}", "--", "echo", "started"])
    assert end.value.code == 2
    out, errors = capfd.readouterr()
    assert not out
    assert errors.startswith(f"error: --port={port}: Address already in use, give another or none")
    assert errors.count("\n") == 1


def test_a_free_port_is_taken(capfd):
    port = local.free_port()
    script = "echo $JAX_COORDINATOR_ADDRESS"
    assert local.main(["--num_processes=1", f"--port={port}", "--", "sh", "-c", script]) == 0
    assert capfd.readouterr().out == f"[0] 127.0.0.1:{port}\n"
