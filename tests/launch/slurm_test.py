"""The script that sbatch is given, run by bash with SLURM's programs in miniature; its commands."""

import os
import pathlib
import shlex
import signal
import subprocess
import time

import pytest

from launch import slurm

SUBMIT = ("submit", "--name=flamingo", "--nodes=2")
GPUS = "--gpus_per_node=4"
# Two tasks, one after the other; options end at the first word that is none.
SRUN = """#!/bin/bash
echo "$0 $*" >> calls
while [[ "$1" == --* ]]; do shift; done
for i in 0 1; do SLURM_NTASKS=2 SLURM_PROCID=$i SLURM_LOCALID=3 "$@" || status=$?; done
exit ${status:-0}
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf 'node7\\nnode8\\n'; else echo "scontrol $*"; fi
"""
TELL = r"""printf '%s\n' "$JAX_COORDINATOR_ADDRESS $JAX_NUM_PROCESSES $JAX_PROCESS_ID" """


def printed(capsys, *arguments: str) -> str:
    action, *more = arguments
    assert slurm.main([action, "--dry_run", *more]) == 0
    return capsys.readouterr().out


def cluster(folder: pathlib.Path) -> dict[str, str]:
    """Programs of a cluster in `folder`, and the environment of a job there."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").write_text("ACTIVE=yes; export ACTIVE\n")
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "SLURM_JOB_ID": "8195", "SLURM_JOB_NODELIST": "node[7-8]"}


def batch(script: str, folder: pathlib.Path) -> subprocess.Popen:
    pipe = subprocess.PIPE
    command = ["bash", "-u", "-c", script]
    return subprocess.Popen(command, cwd=folder, env=cluster(folder), stdout=pipe, text=True)


def asked(script: str) -> set[str]:
    """What sbatch is asked, without the quotes, which it takes as a shell does."""
    start = "#SBATCH "
    lines = [line.removeprefix(start) for line in script.splitlines() if line.startswith(start)]
    return {word for line in lines for word in shlex.split(line)}


def test_what_is_asked_of_slurm(capsys):
    more = ("--time=2-00:00:00", "--partition=gpu", "--account=us", "--option=--comment=a b")
    script = printed(capsys, *SUBMIT, GPUS, "--cpus_per_node=32", *more, "--", "true")
    assert script.startswith("#!/bin/bash\n#SBATCH ")
    assert asked(script) == {
        *("--job-name=flamingo", "--output=flamingo.log", "--open-mode=append", "--nodes=2"),
        *("--ntasks-per-node=1", "--gpus-per-node=4", "--cpus-per-task=32", "--time=2-00:00:00"),
        *("--signal=TERM@120", "--requeue", "--partition=gpu", "--account=us", "--comment=a b"),
    }
    script = printed(capsys, *SUBMIT, GPUS, "--process_per_gpu", "--cpus_per_node=32", "--", "true")
    assert {"--ntasks-per-node=4", "--gpus-per-node=4", "--cpus-per-task=8"} <= asked(script)


def test_every_process_is_told_who_it_is(capsys, tmp_path):
    command = ("--", "bash", "-c", f"{TELL}; echo $ACTIVE $JAX_LOCAL_DEVICE_IDS")
    process = batch(printed(capsys, *SUBMIT, GPUS, *command), tmp_path)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    waiting = {"--kill-on-bad-exit=0", "--wait=0"}  # process 0 ends last
    assert waiting <= set((tmp_path / "calls").read_text().split())
    # the port is 61440 and the rest of 8195 by 4096, as JAX takes it
    assert out.splitlines() == [
        *("node7:61443 2 0", "yes 0,1,2,3"),
        *("node7:61443 2 1", "yes 0,1,2,3"),
    ]


@pytest.mark.parametrize(
    ("flags", "devices"),
    [([GPUS, "--process_per_gpu"], "3"), (["--gpus_per_node=0"], "none")],
)
def test_which_gpus_a_process_has(flags, devices, capsys, tmp_path):
    tell = "echo ${JAX_LOCAL_DEVICE_IDS:-none}"
    process = batch(printed(capsys, *SUBMIT, *flags, "--", "bash", "-c", tell), tmp_path)
    assert process.communicate(timeout=30)[0].splitlines() == [devices] * 2


def test_the_command_arrives_as_it_is(capsys, tmp_path):
    words = ["a  b", "$HOME", "it's", '"', "--dry_run", "line\nfeed", "*"]
    process = batch(printed(capsys, *SUBMIT, GPUS, "--", "printf", "<%s>", *words), tmp_path)
    assert process.communicate(timeout=30)[0] == "".join(f"<{word}>" for word in words) * 2


@pytest.mark.parametrize(("status", "again"), [(143, True), (2, False), (0, False)])
def test_a_run_that_has_saved_is_queued_again(status, again, capsys, tmp_path):
    process = batch(printed(capsys, *SUBMIT, GPUS, "--", "bash", "-c", f"exit {status}"), tmp_path)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == status
    assert out == ("scontrol requeue 8195\n" if again else "")


def test_a_cancelled_run_is_not(capsys, tmp_path):
    _, not_again, term = printed(capsys, "cancel", "--name=f").splitlines()
    assert {"--batch", "--signal=USR1"} < set(shlex.split(not_again))
    assert "--batch" not in term
    wait = "touch ready; while [ ! -e end ]; do sleep 0.02; done; exit 143"
    process = batch(printed(capsys, *SUBMIT, GPUS, "--", "bash", "-c", wait), tmp_path)
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)  # to the script alone
    (tmp_path / "end").touch()
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (143, "")


def test_sbatch_reads_the_script(capfd, monkeypatch, tmp_path):
    (tmp_path / "sbatch").write_text("#!/bin/sh\ncat; echo Submitted batch job 7\n")
    (tmp_path / "sbatch").chmod(0o755)
    script = printed(capfd, *SUBMIT, GPUS, "--", "true")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert slurm.main([*SUBMIT, GPUS, "--", "true"]) == 0
    assert capfd.readouterr().out == f"{script}Submitted batch job 7\n"


def test_a_cluster_that_is_not_there_is_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        slurm.main([*SUBMIT, GPUS, "--", "true"])
    assert end.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: sbatch cannot be started (No such file or directory): see http")


def test_ctrl_c_ends_a_look_at_the_log_without_a_traceback(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    assert slurm.main(["follow", "--name=f"]) == 130


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*SUBMIT, GPUS), "write it behind --"),
        ((*SUBMIT, "--", "true"), "--gpus_per_node: say how many"),
        ((*SUBMIT, "--gpus_per_node=-1", "--", "true"), "'-1' is no whole number of 0 or more"),
        ((*SUBMIT, GPUS, "--time=tomorrow", "--", "true"), "write minutes, 24:00:00 or"),
        ((*SUBMIT, GPUS, "--option=mem=0", "--", "true"), "as in --option=--mem=0"),
        ((*SUBMIT, GPUS, "--log=a\nb", "--", "true"), "--log: write it in one line"),
        (
            (*SUBMIT, "--gpus_per_node=0", "--process_per_gpu", "--", "true"),
            "there are none with --gpus_per_node=0",
        ),
        (("submit", "--name=a b", GPUS, "--", "true"), "write letters, digits"),
        (("follow", "--name=f", "--", "true"), "follow takes no command"),
        (("start", "--name=f"), "invalid choice: 'start'"),
        (("status",), "--name"),
    ],
)
def test_misuse_is_one_line_and_status_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        slurm.main(arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
