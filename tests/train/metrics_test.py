"""metrics.jsonl: valid JSON whatever the numbers, and one row a step after any stop and resume."""

import json

import numpy as np
import pytest

from flamingo_jax.batch import Batch
from flamingo_jax.train import metrics
from flamingo_jax.train.metrics import JsonlWriter, read_rows


def write(path, steps, restored_step=0):
    writer = JsonlWriter(path, restored_step)
    for step in steps:
        writer.write({"step": step, "loss": 1.0 / step})
    writer.close()


def test_rows_come_back_as_numbers(tmp_path):
    file = tmp_path / "new" / "metrics.jsonl"
    writer = JsonlWriter(file)
    writer.write({"step": np.int64(1), "loss": np.float32(0.5), "mfu": None, "gate/3": np.array(2)})
    assert read_rows(file) == [{"step": 1, "loss": 0.5, "mfu": None, "gate/3": 2.0}]  # not closed
    writer.close()


def test_resume_drops_later_rows_and_a_torn_line(tmp_path):
    file = tmp_path / "metrics.jsonl"
    write(file, range(1, 8))
    with file.open("a") as f:
        f.write('{"step": 8, "lo')
    assert [r["step"] for r in read_rows(file)] == [1, 2, 3, 4, 5, 6, 7]
    write(file, range(6, 10), restored_step=5)
    assert [r["step"] for r in read_rows(file)] == list(range(1, 10))


def test_a_line_torn_between_digits_is_not_taken_for_whole(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 2.0}\n12')
    assert [r["step"] for r in read_rows(file)] == [1]


def test_a_new_run_starts_anew_even_over_a_broken_file(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('broken\n{"step": 4}\n')
    write(file, [1, 2])
    assert [r["step"] for r in read_rows(file)] == [1, 2]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"loss": 2}\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl:2 is not a row"):
        read_rows(file)


def test_what_is_not_finite_is_null_and_named(tmp_path):
    file = tmp_path / "metrics.jsonl"
    writer = JsonlWriter(file)
    writer.write({"step": 1, "loss": float("nan"), "grad_norm": np.inf, "lr": 0.1})
    writer.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    row = json.loads(file.read_text(), parse_constant=refuse)
    assert row == {
        "step": 1, "loss": None, "grad_norm": None, "lr": 0.1, "not_finite": ["loss", "grad_norm"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "row", [{"loss": 1.0}, {"step": 1.5}, {"step": True}, {"step": 1, "loss": "x"}]
)
def test_bad_rows_are_refused(tmp_path, row):
    writer = JsonlWriter(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"metrics row: (step|loss)="):
        writer.write(row)
    writer.close()
    assert read_rows(tmp_path / "metrics.jsonl") == []


def test_window_by_hand(monkeypatch):
    clock = iter([0.0, 1.0, 1.5, 4.0, 4.0, 5.0, 5.0])  # open, wait, wait ends, close, open, .
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: next(clock))
    real = np.array([[True, True, False]])
    batch = Batch(None, real, None, None, None, np.array([[[True], [False]]]))
    window = metrics.Window()
    with window.waiting():
        pass
    window.count({"pages": batch, "pairs": batch})
    window.count({"pages": batch, "pairs": batch})
    # 2 of the 8 TFLOP of a step are for its 2 frames
    row = window.close(flops=6e12, flops_per_frame=1e12, num_devices=4, peak_tflops_per_s=10.0)
    assert row == {
        "num_steps": 2, "step_time_s": 2.0, "data_wait_s": 0.25, "tokens_per_s": 2.0,
        "images_per_s": 1.0, "tflops_per_s_per_device": 1.0, "mfu": 0.1,
    }  # fmt: skip
    window.count({"pages": batch})
    assert window.close(flops=1.0, num_devices=1)["mfu"] is None


def test_a_pause_is_in_no_steps_time(monkeypatch):
    clock = iter([0.0, 1.0, 6.0, 8.0, 8.0])  # open, pause, pause ends, close, open
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: next(clock))
    real = np.array([[True, True, False]])
    window = metrics.Window()
    window.count({"pages": Batch(None, real, None, None, None, np.array([[[True], [False]]]))})
    with window.paused():
        pass
    assert window.close(flops=1.0, num_devices=1)["step_time_s"] == 3.0


def test_counts_of_several_processes_take_the_place_of_ones_own(monkeypatch):
    clock = iter([0.0, 2.0, 2.0])
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: next(clock))
    real = np.array([[True, True, False]])
    batch = Batch(None, real, None, None, None, np.array([[[True], [False]]]))
    window = metrics.Window()
    window.count({"pages": batch})
    assert window.counts() == {"tokens": 2, "images": 1, "frames": 1, "waited_s": 0.0}
    both = {"tokens": 10, "images": 4, "frames": 4, "waited_s": 1.0}
    row = window.close(flops=1.0, num_devices=1, counts=both)
    assert (row["tokens_per_s"], row["images_per_s"], row["data_wait_s"]) == (5.0, 2.0, 1.0)


def test_stepping_time_leaves_out_compiling_and_rows_without_times():
    rows = [
        {"step": 1, "num_steps": 1, "step_time_s": 11.0, "compile_s": 10.0},
        {"step": 6, "num_steps": 5, "step_time_s": 2.0, "compile_s": 0.0},
        {"step": 7, "loss": 1.0},
        {"step": 8, "num_steps": 1, "step_time_s": 3.0, "compile_s": 3.5},  # clocks differ
        {"step": 9, "num_steps": 1, "step_time_s": None},
    ]
    assert metrics.stepping_s(rows) == 11.0
    assert metrics.stepping_s([]) == 0.0
