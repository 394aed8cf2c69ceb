"""A command without its packages, in a process whose tensorflow cannot be found."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        ("data_pipelines.inspect", "tensorflow", "error: tensorflow is not installed: in the "),
        ("data_pipelines.inspect", "other", "ModuleNotFoundError: No module named 'other'"),
    ],
)
def test_one_line_names_the_extra_that_has_it(tmp_path, module, name, said):
    missing = f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')"
    (tmp_path / "tensorflow.py").write_text(missing)
    found = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    ours = name == "tensorflow"
    assert found.returncode == (2 if ours else 1)
    assert found.stderr.splitlines()[-1].startswith(said)
    assert ("Traceback" in found.stderr) != ours
    if ours:
        assert found.stderr.endswith("pip install -e '.[data]'\n")
