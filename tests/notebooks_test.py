"""The notebook: every cell runs, in order, on a small run; nothing that it printed is kept."""

import json
import pathlib
import re
import sys
import textwrap

import matplotlib as mpl
import numpy as np
import pytest

from data_pipelines.demo import synthetic
from experiments.configs import flamingo
from experiments.reporting.report import write_report
from experiments.reporting.report_data import Report
from flamingo_jax.config import FlamingoConfig, from_dict
from flamingo_jax.train import metrics
from tests import drawn_model

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOK = json.loads((ROOT / "notebooks" / "flamingo.ipynb").read_text())
# Without the lines that only IPython knows.
CODE = {
    cell["id"]: re.sub(r"(?m)^( *)%.*", r"\1pass", "".join(cell["source"]))
    for cell in NOTEBOOK["cells"]
    if cell["cell_type"] == "code"
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    """A finished run of `micro`, its metrics written by hand, its model drawn.

    The model is smaller still, as most of the time goes into compiling four programs of it.
    """
    workdir = tmp_path_factory.mktemp("notebook") / "micro"
    config = flamingo.get_config("micro")
    config.model.language_model.num_layers = 2
    config.model.cross_attention.every = 1
    config.model.resampler.depth = 1
    config.model.vision.update(kind="vit", variant="thin", num_features=64, width=32)
    drawn_model.save(workdir / "model", from_dict(FlamingoConfig, config.model.to_dict()))
    config.data.dir = str(workdir / "data")
    synthetic.prepare(config.data.dir)
    (workdir / "config.json").write_text(json.dumps({"config": config.to_dict()}))
    writer = metrics.JsonlWriter(workdir / metrics.FILE_NAME)
    for step in (1, 5, 10):
        row = {"step": step, "loss": 3 / step, "loss/pages": 2 / step, "loss/pairs": 1 / step}
        for layer in (1, 3, 5):
            row[f"gate/{layer}.attention"], row[f"gate/{layer}.ffw"] = step - 1, 1 - step
        writer.write(row | ({"validation/pairs": 1.5} if step > 1 else {}))
    writer.close()
    write_report(workdir, Report("micro", wall_s=1.0, peak_rss_gib=1.0))
    return workdir


@pytest.fixture
def names(monkeypatch):
    """What the cells know of each other, as if they ran in a folder of the clone."""
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.setattr(sys, "path", [*sys.path])
    mpl.use("Agg")
    with mpl.rc_context():
        yield {}
        mpl.pyplot.close("all")


def setup_for(workdir: pathlib.Path) -> str:
    """The first cell, about another run."""
    code = CODE["setup"]
    for line, other in (
        ('RECIPE = "demo"', 'RECIPE = "micro"'),
        ('MODEL = f"runs/{RECIPE}"', f'MODEL = "{workdir}"'),
    ):
        assert code.count(line) == 1
        code = code.replace(line, other)
    return code


def execute(name: str, names: dict, code: str | None = None) -> None:
    exec(compile(code or CODE[name], f"cell {name}", "exec"), names)


@pytest.mark.slow
def test_every_cell_runs_on_a_small_run(run, names, capsys):
    import matplotlib.pyplot as plt

    drawn = {}
    for name in CODE:
        execute(name, names, setup_for(run) if name == "setup" else None)
        drawn[name] = [len(plt.figure(number).axes) for number in plt.get_fignums()]
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
        plt.close("all")
    assert {name: count for name, count in drawn.items() if count} == {
        **{"look": [2], "ask": [12], "sight": [3], "few": [5], "mask": [1], "peek": [2]}
    }
    assert pathlib.Path.cwd() == ROOT
    assert np.isfinite(names["log_likelihoods"]).all()
    assert len(set(names["names"])) == 12
    assert names["mask"].sum(axis=1).tolist() == [0] + [1] * (len(names["mask"]) - 1)
    assert (np.diff(names["mask"][1:].argmax(axis=1)) >= 0).all()
    assert names["mask"].any(axis=0).all()
    assert names["first"] == [0.0] * 6
    printed = capsys.readouterr().out
    assert "is there: nothing to train" in printed
    assert "24 held-out pictures" in printed
    assert "all trained" in printed


def test_training_is_the_readmes_command_and_its_progress_is_shown(
    tmp_path, names, monkeypatch, capsys
):
    execute("setup", names)
    assert names["MODEL"] == "runs/demo"
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\necho "$@"\necho "step 1/2" >&2\n')
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    monkeypatch.setattr(pathlib.Path, "is_file", lambda path: False)  # a clone without runs
    execute("train", names)
    said, progress = capsys.readouterr().out.splitlines()
    assert f"python {said}\n" in (ROOT / "README.md").read_text()
    assert progress == "step 1/2"
    stub.write_text("#!/bin/sh\nexit 2\n")
    with pytest.raises(SystemExit, match="status 2"):
        execute("train", names)


def test_outside_a_clone_it_says_so(tmp_path, names, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="is not in a clone"):
        execute("setup", names)


def test_an_interrupted_training_is_ended_and_its_last_lines_are_read(
    tmp_path, names, monkeypatch, capsys
):
    """As the kernel interrupts: the cell asks for the end, the command saves and says so."""
    execute("setup", names)
    names["MODEL"] = str(tmp_path / "none")
    stub = tmp_path / "python"
    stub.write_text(
        textwrap.dedent("""\
            #!/bin/sh
            trap 'echo saved; exit 143' TERM
            echo begun
            while true; do sleep 0.05; done
        """)
    )
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))

    def interrupted(line, **options):
        print(line, **options)
        if line == "begun\n":
            raise KeyboardInterrupt

    names["print"] = interrupted
    with pytest.raises(SystemExit, match="status 143"):
        execute("train", names)
    assert capsys.readouterr().out.split() == ["begun", "saved"]


def test_outputs_are_stripped_and_cells_have_ids():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert NOTEBOOK["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in NOTEBOOK["cells"]:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
