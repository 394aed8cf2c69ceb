"""The gcloud commands of every action, as a shell takes them; nothing is run."""

import functools
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

from launch import tpu_vm

WHERE = ("--name=pod", "--zone=us-east5-a")
ACTIONS = [
    ("create", "--type=v5p-128", "--spot"),
    ("create", "--type=v5p-128", "--queued", "--spot", "--valid_for=6h"),
    ("create", "--type=v5p-128", "--queued", "--num_slices=2"),
    ("status",),
    ("status", "--queued"),
    ("install",),
    ("run", "--", "python", "-m", "experiments.train"),
    ("tail",),
    ("stop",),
    ("delete",),
    ("delete", "--queued"),
]


def printed(capsys, action: str, *more: str) -> list[list[str]]:
    """The words of each command that the action would run."""
    assert tpu_vm.main([action, *WHERE, "--dry_run", *more]) == 0
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


def test_create(capsys):
    (command,) = printed(capsys, "create", "--type=v6e-16", "--spot", "--project=p")
    assert command == [
        *("gcloud", "compute", "tpus", "tpu-vm", "create", "pod", "--project=p"),
        *("--zone=us-east5-a", "--accelerator-type=v6e-16", "--version=v2-alpha-tpuv6e", "--spot"),
    ]


def test_create_as_a_queued_resource(capsys):
    options = ("--type=v5p-128", "--queued", "--spot", "--valid_for=6h")
    (command,) = printed(capsys, "create", *options)
    assert command == [
        *("gcloud", "compute", "tpus", "queued-resources", "create", "pod", "--zone=us-east5-a"),
        *("--node-id=pod", "--accelerator-type=v5p-128", "--runtime-version=v2-alpha-tpuv5"),
        *("--spot", "--valid-until-duration=6h"),
    ]


def test_several_slices_are_one_request_and_every_action_visits_each(capsys):
    several = "--num_slices=2"
    (command,) = printed(capsys, "create", "--type=v4-64", "--queued", several)
    assert {"--node-prefix=pod", "--node-count=2"} <= set(command)
    assert not any(word.startswith("--node-id") for word in command)
    runs = printed(capsys, "run", several, "--", "true")
    assert [words[5] for words in runs] == ["pod-0", "pod-1"]
    (command,) = printed(capsys, "delete", "--queued", several)
    assert command[3:6] == ["queued-resources", "delete", "pod"]
    assert {"--force", "--quiet"} <= set(command)


def test_install_brings_the_last_commit_to_every_host(capsys):
    archive, copy, install = printed(capsys, "install")
    (output,) = [w.removeprefix("--output=") for w in archive if w.startswith("--output=")]
    assert archive[:2] == ["git", "archive"]
    assert copy[3:8] == ["tpu-vm", "scp", output, "pod:flamingo_jax.tar.gz", "--zone=us-east5-a"]
    for command in (copy, install):
        assert "--worker=all" in command
    assert "-e '.[demo,gcs,tpu]'" in install[-1]


def test_what_install_and_run_say_is_a_shells_grammar(capsys):
    workdir = "--workdir=/mnt/a folder/$x"
    for action in (("install",), ("run", "--", "python", "-m", "experiments.train", workdir)):
        for command in printed(capsys, *action):
            for word in command:
                if word.startswith("--command="):
                    line = word.removeprefix("--command=")
                    subprocess.run(["sh", "-n", "-c", line], check=True)


def test_run_starts_the_command_with_its_words_as_they_are(capsys, tmp_path):
    """The line is run here, with a shell in the place of a host."""
    host = tmp_path / "flamingo_jax"
    (host / ".venv" / "bin").mkdir(parents=True)
    (host / ".venv" / "bin" / "activate").write_text("")
    (command,) = printed(capsys, "run", "--", "printf", r"%s\n", "a  b", "$HOME", "it's")
    line = command[-1].removeprefix("--command=")
    subprocess.run(["sh", "-c", f"{line}; wait"], cwd=tmp_path, check=True)
    assert (host / "run.log").read_text().splitlines()[-3:] == ["a  b", "$HOME", "it's"]
    assert int((host / "run.pid").read_text()) > 0


def test_stop_asks_for_a_checkpoint(capsys):
    (command,) = printed(capsys, "stop")
    assert command[-1] == "--command=kill -TERM $(cat flamingo_jax/run.pid)"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", *WHERE), "write generation and size, such as v5p-128"),
        (("create", *WHERE, "--type=v5p"), "write generation and size"),
        (("create", *WHERE, "--type=v9-8"), "use one of ['v4', 'v5litepod', 'v5p', 'v6e']"),
        (("create", *WHERE, "--type=v4-8", "--num_slices=2"), "add --queued"),
        (("create", *WHERE, "--type=v4-8", "--valid_for=1h"), "add --queued"),
        (("run", *WHERE), "write it behind --"),
        (("tail", *WHERE, "--", "true"), "tail takes no command"),
        (("creat", *WHERE), "invalid choice: 'creat'"),
        (("status", "--name=pod"), "--zone"),
    ],
)
def test_misuse_is_one_line_and_status_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        tpu_vm.main([*arguments[:1], "--dry_run", *arguments[1:]])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (
            "status",
            "error: gcloud cannot be started (No such file or directory): see https://cloud",
        ),
        (
            "install",
            "error: git cannot be started (No such file or directory): see https://git-scm",
        ),
    ],
)
def test_a_program_that_is_not_installed_is_named(action, words, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        tpu_vm.main([action, *WHERE])
    assert end.value.code == 2
    command, line = capsys.readouterr().err.splitlines()
    assert command.startswith(words.split()[1])
    assert line.startswith(words)


def test_a_program_that_may_not_be_run_is_named(capsys, monkeypatch, tmp_path):
    (tmp_path / "gcloud").touch(mode=0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        tpu_vm.main(["status", *WHERE])
    assert end.value.code == 2
    assert "gcloud cannot be started (Permission denied)" in capsys.readouterr().err


@functools.cache
def help_of(*command: str) -> str:
    told = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    return re.sub(r"\x1b\[\d*m", "", told.stdout)  # without bold


@pytest.mark.reference
@pytest.mark.parametrize("action", ACTIONS, ids=" ".join)
def test_gcloud_knows_every_flag(action, capsys):
    """Held against the help of gcloud itself, which needs no account."""
    if not shutil.which("gcloud"):
        pytest.skip("gcloud is not installed")
    for command in printed(capsys, *action):
        if command[0] != "gcloud":
            continue
        text = help_of(*command[:5])
        for word in command:
            if word.startswith("--"):
                assert word.partition("=")[0] in text, f"{pathlib.Path(*command[2:5])}: {word}"
