"""docs/launch.md prints what the launchers print, to the letter, and its batch file works."""

import importlib
import os
import pathlib
import re
import shlex
import subprocess

import pytest

from experiments import processes

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "launch.md"
_PAIR = re.compile(r"^```sh\n(.*?)^```\n\n^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAIRS = _PAIR.findall(DOCUMENT.read_text())


@pytest.mark.parametrize(("commands", "printed"), PAIRS, ids=lambda text: text[:40].strip())
def test_what_a_dry_run_prints(commands, printed, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    for line in commands.splitlines():
        python, dash_m, module, *own = shlex.split(line)
        assert (python, dash_m) == ("python", "-m")
        assert "--dry_run" in own
        assert importlib.import_module(module).main(own) == 0
    assert capsys.readouterr().out == printed


def test_every_action_of_a_slice_is_shown():
    assert len(PAIRS) >= 8


def test_slurm_tells_every_process_who_it_is(tmp_path):
    """The document's batch file is run, with SLURM's commands and python in miniature."""
    (script,) = re.findall(r"^```bash\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    programs = {
        "activate": "export PATH=.venv/bin:$PATH",
        "scontrol": "printf 'node7\\nnode8\\n'",
        "srun": 'shift; for i in 0 1; do SLURM_NTASKS=2 SLURM_PROCID=$i "$@"; done',
        "python": f"echo {' '.join('$' + name for name in processes.VARIABLES)} $*",
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    command = ["bash", "-eu", "-c", script]
    environment = {"PATH": os.environ["PATH"], "SLURM_JOB_NODELIST": "node[7-8]"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30
    )
    assert not done.stderr
    for i, line in enumerate(done.stdout.splitlines()):
        assert line.startswith(f"node7:8476 2 {i} -m experiments.train --config=")
    assert len(done.stdout.splitlines()) == 2
