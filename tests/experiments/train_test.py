"""The training command itself, in processes of its own: end to end, killed, stopped, misused.

The runs share a compilation cache, so only the first one compiles everything.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import time

import pytest

from data_pipelines.demo import synthetic
from experiments import cli
from experiments.storage import given_model
from flamingo_jax import model_directory
from tests.experiments.training_bench import Bench

STEPS = 24
TIMES = (
    *("step_time_s", "data_wait_s", "compile_s", "validation_s"),
    *("tokens_per_s", "images_per_s", "tflops_per_s_per_device"),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def bad_data(bench):
    """Options for pairs of which 20 in 92 are unusable, and pages that all are sound."""
    synthetic.prepare(bench.folder / "bad", bad=["truncated"] * 12 + ["no_image"] * 8)
    pages = bench.folder / "bad" / "synthetic_pages"
    for built in pages.iterdir():  # pages by the same builder, without the bad ones
        built.rename(bench.folder / built.name)
    synthetic.prepare(bench.folder / "good")
    (bench.folder / "good" / "synthetic_pages" / "clean").rename(pages / "clean")
    return ("--config.data.source=", f"--config.data.dir={bench.folder / 'bad'}")


# One gated block before the second of two: half of what is traced and compiled.
SMALL = ("--config.model.language_model.num_layers=2", "--config.model.cross_attention.every=1")


@pytest.fixture(scope="module")
def recipe(bad_data):
    """Options of the run that is done in several ways; it survives the bad records."""
    run = (f"--config.steps={STEPS}", "--config.data.max_skipped_share=0.5")
    validation = ("--config.data.validation.pairs.split=train", "--config.validate_every=10")
    return (*bad_data, *SMALL, *run, *validation, "--config.keep_every=10")


REPORT, NO_REPORT = (
    "--config.report.num_queries=4",
    "--config.report.num_queries=0",
)  # half the time


@pytest.fixture(scope="module")
def whole(bench, recipe):
    """The workdir of a run that nothing interrupts."""
    status, errors = bench.finish(bench.start("whole", *recipe, REPORT))
    assert status == 0, errors
    return bench.folder / "whole"


@pytest.fixture(scope="module")
def interrupted(bench, recipe, whole):
    """The same run, killed, started again, asked to stop, started again: (workdir, statuses)."""
    first = bench.start("interrupted", *recipe, NO_REPORT)
    bench.reach(first, "interrupted", random.randint(6, 10))
    first.kill()
    bench.finish(first)
    killed_at = bench.rows("interrupted")[-1]["step"]

    second = bench.start("interrupted", *recipe, NO_REPORT)
    bench.reach(second, "interrupted", killed_at + random.randint(1, 4))
    second.send_signal(signal.SIGTERM)
    stopped = bench.finish(second)
    stopped_at = bench.rows("interrupted")[-1]["step"]
    print(f"killed at step {killed_at}, stopped at step {stopped_at}")  # shown where a test fails
    assert killed_at < stopped_at < STEPS

    last = bench.finish(bench.start("interrupted", *recipe, NO_REPORT, "--embed_frozen"))
    return bench.folder / "interrupted", (stopped, last, stopped_at)


def test_the_promised_files_are_there(whole):
    names = {p.name for p in whole.iterdir()}
    assert names >= {
        *("config.json", "metrics.jsonl", "checkpoints", "model"),
        *("report.md", "report.json", "report.png"),
    }
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert (whole / "checkpoints" / str(STEPS)).is_dir()
    assert (whole / "model" / "model.json").is_file()
    assert not (whole / "model" / "frozen.safetensors").exists()


def test_config_json_says_what_ran(whole):
    values = json.loads((whole / "config.json").read_text())
    assert values["config"]["steps"] == STEPS
    assert {"jax", "flax", "tensorflow"} <= set(values["versions"])
    assert f"--config.steps={STEPS}" in values["command"]


def test_metrics_have_the_promised_keys_and_the_loss_falls(bench, whole):
    rows = bench.rows("whole")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    times = set(TIMES) - {"validation_s"}
    promised = {"loss", "loss/pages", "loss/pairs", "grad_norm", "lr", "mfu", *times}
    for row in rows:
        assert promised <= set(row)
        assert row["mfu"] is None  # the peak of this processor is not known
        assert row["skipped/pages"] == 0
    assert {key for key in rows[0] if key.startswith("gate/")} == {
        f"gate/1.{branch}" for branch in ("attention", "ffw")
    }
    assert [rows[i]["lr"] for i in range(4)] == pytest.approx([0, 5e-3, 1e-2, 1e-2])
    first, last = (sum(row["loss"] for row in part) / 10 for part in (rows[:10], rows[-10:]))
    assert last < first


def test_validation_is_where_it_was_asked_for_and_its_loss_falls_too(bench, whole):
    found = {row["step"]: row for row in bench.rows("whole") if "validation/pairs" in row}
    assert list(found) == [10, 20, STEPS]
    assert found[STEPS]["validation/pairs"] < found[10]["validation/pairs"]
    assert found[10]["compile_s"] < 0.1 < found[10]["validation_s"]  # its own is in no step's
    skipped = [row["validation_skipped/pairs"] for row in found.values()]
    assert skipped[0] > 0
    assert len(set(skipped)) == 1
    report = (whole / "report.md").read_text()
    assert f"| validation of pairs, step {STEPS} |" in report


def test_milestones_are_kept_beside_the_newest(whole):
    """Of the checkpoints every 5 steps."""
    kept = {p.name for p in (whole / "checkpoints").iterdir() if p.name.isdigit()}
    assert kept == {"10", "20", str(STEPS)}


def test_a_checkpoint_is_a_model(whole, tmp_path, monkeypatch):
    """The last one the finished model to the last bit, an earlier one another of the same names."""
    monkeypatch.setenv("FLAMINGO_JAX_CACHE", str(tmp_path))
    place = f"{whole}/checkpoints"
    last = given_model.folder("--model", f"{place}/{STEPS}/")
    for path in (whole / "model").rglob("*.*"):
        assert (last / path.relative_to(whole / "model")).read_bytes() == path.read_bytes()
    earlier = given_model.folder("--model", f"{place}/10")
    was, became = (model_directory.trained_params(folder) for folder in (earlier, last))
    gates = [params["gated_xattn"]["groups"]["layers"]["ffw_gate"] for params in (was, became)]
    assert abs(gates[0]) < abs(gates[1])
    made = (earlier / "weights.safetensors").stat().st_mtime_ns
    assert given_model.folder("--model", f"{place}/10") == earlier
    assert (earlier / "weights.safetensors").stat().st_mtime_ns == made
    assert given_model.card("init_from", f"{place}/10") == model_directory.read_card(whole)
    with pytest.raises(cli.UserError, match=rf"no checkpoint of that step .* \[10, 20, {STEPS}\]"):
        given_model.folder("--model", f"{place}/11")
    with pytest.raises(
        model_directory.ModelDirectoryError, match="is a checkpoint, which commands"
    ):
        model_directory.load(f"{place}/10")


def test_the_report_has_the_promised_numbers(whole):
    report = json.loads((whole / "report.json").read_text())
    assert report["wall_s"] > 0
    assert report["peak_rss_gib"] > 0
    assert 0 < report["goodput"] < 1
    assert {"nll_right", "nll_shuffled", "rank1_of_4", "num_queries"} <= set(report["heldout"])
    assert report["heldout"]["num_queries"] == 4
    for shots in ("0", "4"):
        score = report["few_shot"][shots]
        assert score["low"] <= score["cider"] <= score["high"]
        assert score["num_queries"] == 4
    assert 0 <= report["few_shot"]["4"]["rank1_of_4"] <= 1


def test_bad_records_are_counted(bench, whole):
    skipped = [row["skipped/pairs"] for row in bench.rows("whole")]
    assert skipped == sorted(skipped)
    assert skipped[-1] > 0
    counts = json.loads((whole / "report.json").read_text())["data"]
    assert counts["pairs"]["skipped"] == skipped[-1] == sum(counts["pairs"]["reasons"].values())
    assert set(counts["pairs"]["reasons"]) == {"truncated", "not_a_pair"}
    assert counts["pairs"]["examples"] + skipped[-1] == 8 * STEPS
    assert counts["pages"]["examples"] == 4 * STEPS
    assert counts["pages"]["skipped"] == 0


def test_sigterm_saves_and_exits_143(interrupted):
    _, ((status, errors), _, stopped_at) = interrupted
    assert status == 143
    assert f"SIGTERM: saved step {stopped_at}" in errors


def test_a_killed_and_a_stopped_run_end_as_if_nothing_had_happened(bench, whole, interrupted):
    workdir, (_, (status, errors), _) = interrupted
    assert status == 0, errors
    assert (workdir / "model" / "frozen.safetensors").is_file()
    weights = "model/weights.safetensors"
    assert (workdir / weights).read_bytes() == (whole / weights).read_bytes()

    def timeless(name):
        return [{k: v for k, v in row.items() if k not in TIMES} for row in bench.rows(name)]

    assert timeless("interrupted") == timeless("whole")
    found, want = (json.loads((d / "report.json").read_text()) for d in (workdir, whole))
    assert found["data"] == want["data"]


def test_wall_time_adds_up_over_restarts(bench, interrupted):
    """`clock.json` kept the time of the earlier processes."""
    workdir, _ = interrupted
    before_s = json.loads((workdir / "clock.json").read_text())["wall_s"]
    training_s = sum(row["step_time_s"] for row in bench.rows("interrupted"))
    assert before_s > training_s
    assert json.loads((workdir / "report.json").read_text())["wall_s"] > before_s


@pytest.fixture(scope="module")
def lost(bench, recipe, whole):
    """A run of two processes that loses one, then goes on as one: (workdir, statuses)."""
    if not pathlib.Path("/proc/self/environ").exists():
        pytest.skip("needs /proc to find a process of the run")
    first = bench.start("lost", *recipe, NO_REPORT, num_processes=2)
    bench.reach(first, "lost", random.randint(6, 10))
    killed_s = time.monotonic()
    os.kill(bench.pid_of("lost", random.randint(0, 1)), signal.SIGKILL)
    stopped = bench.finish(first)
    seconds = time.monotonic() - killed_s
    last = bench.finish(bench.start("lost", *recipe, NO_REPORT))
    return bench.folder / "lost", (stopped, seconds, last)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_within_a_minute(lost):
    _, ((status, errors), seconds, _) = lost
    assert status == 137
    assert "launch.local: process" in errors
    assert "(SIGKILL): the others end too" in errors
    assert seconds < 60


@pytest.mark.slow
def test_fewer_processes_go_on_to_the_same_end(bench, whole, lost):
    workdir, (_, _, (status, errors)) = lost
    assert status == 0, errors
    found, want = bench.rows("lost"), bench.rows("whole")
    assert [row["step"] for row in found] == [row["step"] for row in want]
    for key in ("loss", "loss/pages", "loss/pairs", "grad_norm", "gate/1.attention"):
        assert [r[key] for r in found] == pytest.approx([r[key] for r in want], abs=1e-5), key
    for key in ("skipped/pages", "skipped/pairs", "validation_skipped/pairs"):
        assert [r.get(key) for r in found] == [r.get(key) for r in want]
    for key in ("validation/pairs", "validation_shuffled/pairs"):
        found_at, want_at = ([r[key] for r in rows if key in r] for rows in (found, want))
        assert found_at == pytest.approx(want_at, abs=1e-5), key
    found, want = (json.loads((d / "report.json").read_text()) for d in (workdir, whole))
    assert found["data"] == want["data"]


@pytest.fixture(scope="module")
def reported_together(bench, recipe, whole):
    """That run's end once more, by two processes that evaluate together: its workdir."""
    workdir = bench.folder / "together"
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / "model")
    (workdir / "report.json").unlink()
    status, errors = bench.finish(bench.start("together", *recipe, REPORT, num_processes=2))
    assert status == 0, errors
    return workdir


@pytest.mark.slow
def test_two_processes_report_what_one_does(whole, reported_together):
    found, want = (
        json.loads((workdir / "report.json").read_text()) for workdir in (reported_together, whole)
    )
    for key in ("nll_right", "nll_shuffled", "rank1_of_4"):
        assert found["heldout"][key] == pytest.approx(want["heldout"][key], abs=1e-5), key
    for shots, score in want["few_shot"].items():
        assert found["few_shot"][shots]["cider"] == pytest.approx(score["cider"])
    assert found["few_shot"]["4"]["rank1_of_4"] == want["few_shot"]["4"]["rank1_of_4"]
    a, b = ((d / "model" / "weights.safetensors").read_bytes() for d in (reported_together, whole))
    assert a == b


def one_line(status_and_errors) -> str:
    """The error of a command that a user can mend."""
    status, errors = status_and_errors
    assert status == 2, errors
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert errors.endswith(line + "\n")
    return line


@pytest.fixture(scope="module")
def stopped(bench, bad_data, whole):
    """A run that begins with the finished model, and allows fewer bad records than there are."""
    begin = f"--config.init_from={whole}"
    options = (*bad_data, *SMALL, f"--config.steps={STEPS}", begin, "--config.validate_every=0")
    return bench.finish(bench.start("stopped", *options))


def test_a_run_begins_with_the_finished_model_it_is_given(bench, whole, stopped):
    rows, fresh = bench.rows("stopped"), bench.rows("whole")
    assert rows[0]["loss"] < fresh[0]["loss"] - 0.2
    assert rows[0]["gate/1.attention"] == pytest.approx(fresh[-1]["gate/1.attention"])  # lr is 0
    assert fresh[0]["gate/1.attention"] == 0


def test_too_many_bad_records_stop_the_run(bench, stopped):
    line = one_line(stopped)
    assert "pairs: " in line
    assert "records are unusable, more than max_skipped_share=0.05" in line
    assert "truncated" in line
    steps = len(bench.rows("stopped"))
    assert 100 / 8 <= steps + 1 < STEPS
    assert (bench.folder / "stopped" / "checkpoints" / str(steps // 5 * 5)).is_dir()


def test_misuse_is_one_line_and_status_2(bench):
    """At once, for each command spends its time on imports; `run_setup_test.py` has the others."""
    started = {
        "unknown variant 'micr': use one of": bench.start("no", variant="micr"),
        "no key 'steqs'": bench.start("no", "--config.steqs=3"),
        "no TFDS dataset in": bench.start(
            "no", "--config.data.source=", f"--config.data.dir={bench.folder / 'nowhere'}"
        ),
    }
    for words, process in started.items():
        assert words in one_line(bench.finish(process))
    assert not (bench.folder / "no").exists()
    assert not (bench.folder / "nowhere").exists()  # a slip in data.dir makes no folder
