"""A sweep over a stand-in for a training run: order, going on, failures, signals, the table."""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import fsspec
import pytest

from launch import sweep
from tests import buckets

ROOT = pathlib.Path(__file__).parents[2]
# Writes what experiments.train writes; `a=3` fails, and it adds itself to a list of what was run.
STAND_IN = """
import json, pathlib, sys
flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:] if "=" in word)
a, b = flags.get("config.a", "0"), flags.get("config.b", "0")
workdir = pathlib.Path(flags["workdir"])
with open(workdir.parent / "order", "a") as order:
    print(a, b, file=order)
if a == "3":
    sys.exit("error: three is too many")
nll = abs(float(a) - 2) + float(b)
(workdir / "metrics.jsonl").write_text('{"loss": 9}\\n{"loss": %f}\\n{"lo' % nll)
heldout = {"nll_right": nll, "rank1": 1 / (1 + nll), "rank1_low": 0.0, "num_queries": 8}
(workdir / "report.json").write_text(json.dumps({"heldout": heldout, "wall_s": 61.4}))
"""
COMMAND = ("--", sys.executable, "-S", "-c", STAND_IN)


def run(workdir: pathlib.Path | str, *own: str, command=COMMAND) -> int:
    return sweep.main([f"--workdir={workdir}", *own, *command])


def order(workdir: pathlib.Path) -> list[str]:
    """What was run since the last look."""
    file = workdir / "order"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def table(workdir: pathlib.Path) -> dict[str, dict]:
    points = json.loads((workdir / "sweep.json").read_text())["points"]
    return {point["name"]: point for point in points}


def test_every_point_is_run_in_order_and_the_table_has_the_best_first(tmp_path, capfd):
    assert run(tmp_path, "--grid=a=1,2", "--grid=b=0.5,0.25") == 0
    assert order(tmp_path) == ["1 0.5", "1 0.25", "2 0.5", "2 0.25"]
    found = table(tmp_path)
    assert list(found) == ["a=2,b=0.25", "a=2,b=0.5", "a=1,b=0.25", "a=1,b=0.5"]
    best = found["a=2,b=0.25"]
    assert best["overrides"] == {"a": "2", "b": "0.25"}
    assert (best["heldout.nll_right"], best["loss"], best["wall_s"]) == (0.25, 0.25, 61.4)
    assert (best["status"], best["workdir"]) == ("finished", str(tmp_path / "a=2,b=0.25"))
    lines = (tmp_path / "sweep.md").read_text().splitlines()
    head = "| `a` | `b` | loss | heldout.nll_right | heldout.rank1 | wall time | status |"
    at = lines.index(head)
    assert lines[at + 2] == "| 2 | 0.25 | 0.25 | 0.25 | 0.8 | 61 s | finished |"
    out, errors = capfd.readouterr()
    assert out == f"{tmp_path / 'sweep.md'}\n"
    assert "sweep: 4 of 4, a=2,b=0.25: finished, in 0 s, heldout.nll_right 0.25\n" in errors


def test_the_metric_and_its_direction(tmp_path):
    assert run(tmp_path, "--grid=a=0,2,1", "--metric=heldout.rank1", "--largest_first") == 0
    assert list(table(tmp_path)) == ["a=2", "a=1", "a=0"]
    assert run(tmp_path, "--grid=a=0,2,1", "--metric=loss", "--largest_first") == 0
    assert list(table(tmp_path)) == ["a=0", "a=1", "a=2"]


# As the other one, where a workdir is a folder of a bucket; `a=2` leaves its report in another run.
IN_BUCKET = """
import sys
import fsspec
flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
store, workdir = fsspec.core.url_to_fs(flags["workdir"])
a = int(flags["config.a"])
if a == 2 and not store.exists(workdir + "/metrics.jsonl"):
    store.pipe_file(workdir + "/metrics.jsonl", b'{"loss": 0.5}')
    sys.exit("error: out of time")
store.pipe_file(workdir + "/report.json", b'{"heldout": {"nll_right": %d}}' % a)
"""


def test_points_in_a_bucket_are_found_there_again(tmp_path, monkeypatch, capfd):
    place, grid = "gs://bucket/sweeps/a", "--grid=a=1,2"
    command = ("--", sys.executable, "-c", IN_BUCKET)
    with buckets.serve("bucket"):
        store = fsspec.filesystem("gs", use_listings_cache=False)
        for machine, status, due in (("first", 1, 2), ("second", 0, 1), ("third", 0, 0)):
            monkeypatch.setenv("FLAMINGO_JAX_CACHE", str(tmp_path / machine))
            assert run(place, grid, command=command) == status
            out, errors = capfd.readouterr()
            assert out == f"{place}/sweep.md\n"
            assert f"sweep: 2 points, {due} to run, 1 at a time\n" in errors
            assert ("a=2: failed (1), status 1: error: out of time" in errors) == bool(status)
        points = json.loads(store.cat("bucket/sweeps/a/sweep.json"))["points"]
        assert [(p["name"], p["status"], p["loss"]) for p in points] == [
            ("a=1", "finished", None),
            ("a=2", "finished", 0.5),
        ]
        assert points[0]["workdir"] == f"{place}/a=1"
        assert (tmp_path / "first/sweeps/bucket/sweeps/a/a=2/output.log").is_file()
        with pytest.raises(SystemExit):
            run("gs://another/a", grid, command=command)
    assert "gs://another/a: there is no such bucket: make it first" in capfd.readouterr().err


def test_a_metric_that_no_report_has_is_said(tmp_path, capfd):
    assert run(tmp_path, "--grid=a=1,2", "--metric=heldout.cider") == 0
    assert "no report has heldout.cider: give --metric=loss" in capfd.readouterr().err


def test_a_failure_stops_no_other_and_only_it_is_run_again(tmp_path, capfd):
    assert run(tmp_path, "--grid=a=1,3,2") == 1
    assert order(tmp_path) == ["1 0", "3 0", "2 0"]
    assert "2 of 3, a=3: failed (1), status 1: error: three is too many" in capfd.readouterr().err
    statuses = {name: point["status"] for name, point in table(tmp_path).items()}
    assert statuses == {"a=2": "finished", "a=1": "finished", "a=3": "failed (1)"}
    assert (tmp_path / "sweep.md").read_text().endswith("\n- a=3: `error: three is too many`\n")
    assert run(tmp_path, "--grid=a=1,3,2") == 1
    assert order(tmp_path) == ["3 0"]


def test_points_that_are_added_later_find_the_others(tmp_path):
    assert run(tmp_path, "--grid=a=1,2", "--grid=b=0") == 0
    assert order(tmp_path) == ["1 0", "2 0"]
    assert run(tmp_path, "--grid=b=0,1", "--grid=a=2") == 0  # another order of the keys, too
    assert order(tmp_path) == ["2 1"]


def test_another_command_is_run_in_the_same_folders(tmp_path):
    assert run(tmp_path, "--grid=a=1") == 0
    assert run(tmp_path, "--grid=a=1", command=(*COMMAND, "--more=1")) == 0
    assert order(tmp_path) == ["1 0"] * 2
    broken = ("--", sys.executable, "-S", "-c", "raise SystemExit(7)")
    for _ in range(2):
        assert run(tmp_path, "--grid=a=1", command=broken) == 1  # though there is a report
    assert table(tmp_path)["a=1"]["status"] == "failed (7)"


def test_a_report_that_was_made_by_hand_counts(tmp_path):
    (tmp_path / "a=1").mkdir()
    (tmp_path / "a=1" / "report.json").write_text('{"heldout": {"nll_right": 4}}')
    assert run(tmp_path, "--grid=a=1,2") == 0
    assert order(tmp_path) == ["2 0"]
    assert table(tmp_path)["a=1"]["heldout.nll_right"] == 4


def test_points_of_a_file(tmp_path):
    file = tmp_path / "points.jsonl"
    file.write_text('{}\n{"a": 1e-1, "b": "(0, 4)"}\n\n{"c.d": true}\n')
    assert run(tmp_path, f"--file={file}", command=("--", "true")) == 1  # leaves no report
    found = [point["overrides"] for point in table(tmp_path).values()]
    assert found == [{}, {"a": "1e-1", "b": "(0, 4)"}, {"c.d": "true"}]
    base, hashed, last = table(tmp_path)
    assert (base, last) == ("base", "c.d=true")
    assert hashed.startswith("a=1e-1,b=_0,_4_-")
    record = json.loads((tmp_path / last / "sweep_point.json").read_text())
    assert record["command"] == ["true", "--config.c.d=true"]


def test_so_many_at_a_time_each_with_its_slot(tmp_path):
    """The first ends when the third has begun, which the second makes room for."""
    script = (
        "import pathlib, sys, time; slot, a, workdir = sys.argv[1], *sys.argv[-2:]\n"
        "folder = pathlib.Path(workdir.split('=', 1)[1]); end = time.time() + 20\n"
        "(folder.parent / a[-1]).write_text(slot); (folder / 'report.json').write_text('{}')\n"
        "while a[-1] == '1' and not (folder.parent / '3').exists():\n"
        "    assert time.time() < end; time.sleep(0.01)\n"
    )
    launcher = shlex.join([sys.executable, "-S", "-c", script, "{slot}"])
    own = ("--grid=a=1,2,3", "--parallel=2", f"--launcher={launcher}")
    assert run(tmp_path, *own, command=("--", "true")) == 0
    assert [point["status"] for point in table(tmp_path).values()] == ["finished"] * 3
    assert [(tmp_path / a).read_text() for a in "123"] == ["0", "1", "1"]


def test_what_a_launcher_takes_is_handed_over_once(tmp_path, capfd):
    own = ("--grid=a=1,2", "--launcher=sh -c 'echo Submitted {index}'")
    assert run(tmp_path, *own) == 0
    assert "1 of 2, a=1: handed over, Submitted 1\n" in capfd.readouterr().err
    assert run(tmp_path, *own) == 0
    assert "handed over, Submitted" not in capfd.readouterr().err
    (tmp_path / "a=2" / "report.json").write_text('{"heldout": {"nll_right": 4}}')
    assert run(tmp_path, *own) == 0
    statuses = {name: point["status"] for name, point in table(tmp_path).items()}
    assert statuses == {"a=2": "finished", "a=1": "handed over"}
    assert run(tmp_path, *own, "--resubmit") == 0
    errors = capfd.readouterr().err
    assert "a=1: handed over, Submitted 1" in errors
    assert "a=2: handed over" not in errors


def test_a_dry_run_prints_what_is_due_and_starts_nothing(tmp_path, capsys):
    (tmp_path / "a=1").mkdir()
    (tmp_path / "a=1" / "report.json").write_text("{}")
    launcher = "--launcher=python -m launch.slurm submit --name=s-{index} --gpus_per_node=1"
    own = ("--grid=a=1,2", "--grid=b=x y", launcher, "--dry_run")
    assert run(tmp_path, *own, command=("--", "python", "-m", "train")) == 0
    first, second = capsys.readouterr().out.splitlines()
    *prefix, name, gpus, dashes, python, _, _, a, b, workdir = shlex.split(first)
    assert [*prefix, name, gpus] == shlex.split(launcher.partition("=")[2].replace("{index}", "1"))
    assert (dashes, python, a, b) == ("--", "python", "--config.a=1", "--config.b=x y")
    assert workdir.startswith(f"--workdir={tmp_path / 'a=1,b=x_y-'}")
    assert shlex.split(second)[-2] == "--config.b=x y"
    assert [path.name for path in tmp_path.iterdir()] == ["a=1"]
    assert run(tmp_path, "--grid=a=1,2", "--dry_run", command=("--", "train")) == 0
    assert capsys.readouterr().out == f"train --config.a=2 --workdir={tmp_path / 'a=2'}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_all_save_and_starts_no_other(number, tmp_path):
    script = "trap 'echo saved; exit 143' TERM INT; echo ready; while :; do sleep 0.02; done"
    own = [f"--workdir={tmp_path}", "--grid=a=1,2,3", "--parallel=2", "--", "bash", "-c", script]
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "launch.sweep", *own]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=pipe, stderr=pipe)
    logs = [tmp_path / name / "output.log" for name in ("a=1", "a=2")]
    while not all(log.exists() and log.read_text() for log in logs):
        time.sleep(0.02)
    assert run(tmp_path, "--grid=a=2") == 1  # a second sweep keeps out of a folder in use
    assert not order(tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert f"sweep: {number.name}: passed on to the 2 running" in errors
    assert [log.read_text() for log in logs] == ["ready\nsaved\n"] * 2
    statuses = {name: point["status"] for name, point in table(tmp_path).items()}
    assert statuses == {"a=1": "stopped", "a=2": "stopped", "a=3": "waiting"}
    assert run(tmp_path, "--grid=a=1,2") == 0
    assert order(tmp_path) == ["1 0", "2 0"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--grid=a=1",), "write it behind --"),
        (("--", "true"), "either --grid=KEY=VALUE,VALUE or --file"),
        (("--grid=a=1", "--file=x", "--", "true"), "either --grid=KEY=VALUE,VALUE or --file"),
        (("--grid=a", "--", "true"), "--grid=a: write KEY=VALUE,VALUE"),
        (("--grid=a b=1", "--", "true"), "write KEY=VALUE,VALUE"),
        (("--grid=a=1", "--grid=a=2", "--", "true"), "a has values already"),
        (("--grid=a=1,1", "--", "true"), "the point a=1 is there twice"),
        (("--grid=a=1", "--", "true", "--workdir=x"), "--workdir behind --: leave it out"),
        (("--grid=a=1", "--", "no-such-program"), "write a program behind --"),
        (("--grid=a=1", "--launcher=no-such", "--", "true"), "write a program in --launcher"),
        (("--grid=a=1", "--launcher='", "--", "true"), "--launcher=': no closing quotation"),
        (("--grid=a=1", "--parallel=0", "--", "true"), "'0' is no whole number of 1 or more"),
        (("--grid=a=1", f"--workdir={__file__}", "--", "true"), "is no folder"),
        (("--grid=a=1", "--workdir=", "--", "true"), "'' is no folder"),
        (("--grid=a=1", "--workdir=s3://bucket/a", "--", "true"), "give gs://BUCKET/FOLDER"),
        (("--file=no-such-file", "--", "true"), "--file=no-such-file: cannot be read"),
    ],
)
def test_misuse_is_one_line_and_status_2(arguments, words, capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        sweep.main([f"--workdir={tmp_path / 'sweep'}", *arguments])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1}\n{"a"', "line 2: is no JSON"),
        ("[1]", "line 1: write an object of settings"),
        ('{"a": [1, 2]}', 'line 1: write a as a number or a text, such as "(0, 4)"'),
        ('{"a": null}', "line 1: write a as a number or a text"),
        ('{"--a": 1}', "line 1: write an object of settings"),
        ("\n", "has no points"),
    ],
)
def test_a_wrong_line_of_a_file_is_named(text, words, capsys, tmp_path):
    (tmp_path / "points").write_text(text)
    with pytest.raises(SystemExit) as end:
        run(tmp_path / "sweep", f"--file={tmp_path / 'points'}")
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
