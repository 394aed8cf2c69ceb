"""docs/launch.md prints what the launchers print, to the letter."""

import importlib
import pathlib
import re
import shlex

import pytest

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "launch.md"
_PAIR = re.compile(r"^```sh\n(.*?)^```\n\n^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAIRS = _PAIR.findall(DOCUMENT.read_text())


@pytest.mark.parametrize(("commands", "printed"), PAIRS, ids=lambda text: text[:40].strip())
def test_what_a_dry_run_prints(commands, printed, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    monkeypatch.chdir(tmp_path)  # where no run has been
    for line in commands.splitlines():
        python, dash_m, module, *own = shlex.split(line)
        assert (python, dash_m) == ("python", "-m")
        assert "--dry_run" in own
        assert importlib.import_module(module).main(own) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("launcher", ["tpu_vm", "slurm", "gke"])
def test_every_action_is_shown(launcher):
    shown = " ".join(commands for commands, _ in PAIRS)
    for action in importlib.import_module(f"launch.{launcher}").ACTIONS:
        assert f"launch.{launcher} {action} " in shown
