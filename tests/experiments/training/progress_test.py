"""Progress: lines in a log, a bar on a terminal."""

import io

from experiments.training import progress
from experiments.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_whole_lines_not_too_many_and_the_last_step(monkeypatch):
    clock = iter([0.0, 2.0, 4.0, 12.0, 14.0])  # seconds at each update
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    log = io.StringIO()
    with Progress(5, stream=log) as bar:
        for step in range(1, 6):
            bar.update(step, loss=3.0 - step / 10)
    assert log.getvalue().splitlines() == [
        "step 1/5 loss 2.900",  # the first step compiles, so there is no speed yet
        "step 4/5 loss 2.600 4.00 s/step 0:04 left",
        "step 5/5 loss 2.500 3.50 s/step 0:00 left",
    ]


def test_time_left_after_a_resume_counts_only_this_runs_steps(monkeypatch):
    clock = iter([0.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    log = io.StringIO()
    with Progress(2000, initial=100, stream=log) as bar:
        bar.update(101)
        bar.update(103)
    assert log.getvalue().splitlines()[-1] == "step 103/2000 10.00 s/step 5:16:10 left"


def test_a_terminal_gets_a_bar_and_lines_beside_it():
    terminal = Terminal()
    with Progress(4, initial=1, stream=terminal) as bar:
        bar.update(2, loss=1.25)
        bar.say("saved step 2")
        bar.update(4, loss=1.0)
    text = terminal.getvalue()
    assert "4/4" in text
    assert "loss 1.000" in text
    assert "saved step 2\n" in text
