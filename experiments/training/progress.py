"""How far training is: a bar on a terminal, plain lines in a log.

Both show the step, the loss, the time a step takes and the time left.
"""

import sys
import time
from typing import Any, Self, TextIO

import tqdm

from data_pipelines import progress_bar
from experiments.training import processes

_LINE_EVERY_S = 10.0


class Progress:
    """Shows steps `initial` to `total`; use as a context manager.

    The time left is reckoned from the steps after the first, which compiles. With `show=False`
    nothing is shown: of several processes, one speaks.
    """

    def __init__(
        self,
        total: int,
        *,
        initial: int = 0,
        unit: str = "step",
        stream: TextIO | None = None,
        show: bool = True,
    ):
        self._stream = stream if stream is not None else sys.stderr
        self._show = show
        self._total, self._unit = total, unit
        self._first: tuple[int, float] | None = None  # the step and time after compiling
        self._last_line_s = -float("inf")
        self._bar = None
        if show and self._stream.isatty():
            self._bar = tqdm.tqdm(
                total=total,
                initial=initial,
                unit=unit,
                file=self._stream,
                dynamic_ncols=True,
                bar_format="{desc} {bar} {n_fmt}/{total_fmt} {postfix}",
            )

    def update(self, step: int, **values: float) -> None:
        """Says that `step` is done, with numbers to show beside it, such as loss=3.2."""
        now = time.monotonic()
        if self._first is None:
            self._first = (step, now)
        numbers = " ".join(f"{name} {value:.3f}" for name, value in values.items())
        status = f"{numbers} {self._speed(step, now)}".strip()
        if self._bar is not None:
            self._bar.set_postfix_str(status, refresh=False)
            self._bar.update(step - self._bar.n)
        elif now - self._last_line_s >= _LINE_EVERY_S or step >= self._total:
            self._last_line_s = now
            self.say(f"{self._unit} {step}/{self._total} {status}".rstrip())

    def say(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif self._show:
            print(text, file=self._stream, flush=True)

    def _speed(self, step: int, now: float) -> str:
        assert self._first is not None
        first_step, first_s = self._first
        if step <= first_step:
            return ""
        step_s = (now - first_s) / (step - first_step)
        return f"{step_s:.2f} s/{self._unit} {_duration((self._total - step) * step_s)} left"

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def bar(total: int, doing: str, unit: str) -> Any:
    """`progress_bar.bar` of process 0; nothing is shown by the others."""
    return progress_bar.bar(total, doing, unit) if processes.is_first() else _Silent()


class _Silent:
    """A bar that nobody sees."""

    def update(self, number: int = 1) -> None:
        """`number` more are done."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """There is nothing to close."""
