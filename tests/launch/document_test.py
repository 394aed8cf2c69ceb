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
