"""Progress in a log is plain lines, and a bar is for terminals only."""

import io
import sys

import pytest
import tqdm

from data_pipelines import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_whole_lines_now_and_then_and_one_at_the_end(monkeypatch, capsys):
    now = 100.0
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: now)
    with progress_bar.bar(50, "drawing", "pictures") as bar:
        for _ in range(50):
            now += 0.5
            bar.update()
    assert capsys.readouterr().err.splitlines() == [
        "drawing: 20 of 50 pictures in 10 s",
        "drawing: 40 of 50 pictures in 20 s",
        "drawing: 50 of 50 pictures in 25 s",
    ]


def test_a_line_may_end_with_more(capsys):
    bar = progress_bar.bar(3, "stage", "tasks")
    bar.n = 2
    bar.set_postfix_str("at most 10 records")
    bar.close()
    assert capsys.readouterr().err == "stage: 2 of 3 tasks in 0 s, at most 10 records\n"


@pytest.mark.parametrize("total", [0, 3])
def test_a_terminal_gets_a_bar(monkeypatch, total):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar.bar(total, "drawing", "pictures") as bar:
        assert isinstance(bar, tqdm.tqdm)
        bar.update(total)


def test_a_terminal_without_tqdm_gets_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert isinstance(progress_bar.bar(1, "drawing", "pictures"), progress_bar.Lines)
