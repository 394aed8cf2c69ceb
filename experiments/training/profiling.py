"""A profile of a few steps, on request: `--config.profile.steps=10:12`.

What the devices and the host did in those steps lies in the workdir's `plugins/profile/`, where
TensorBoard with its profile plugin finds it beside the metrics. Process 0 alone writes one. Leave
out the first step of a run, which compiles.
"""

import contextlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax


def parse_steps(text: str, steps: int) -> tuple[int, int] | None:
    """(first, last) of `FIRST:LAST`, both profiled; None for no text.

    ValueError for other text, or where a run of so many `steps` never comes there.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"profile.steps={text!r}: write FIRST:LAST, such as 10:12")
    if int(found[1]) > steps:
        raise ValueError(f"profile.steps={text!r}: the run ends with steps={steps}")
    return int(found[1]), int(found[2])


class Profiler:
    """Traces the steps `first` to `last`, as far as the run visits them."""

    def __init__(self, workdir: pathlib.Path, steps: tuple[int, int] | None):
        self._folder, self._steps = workdir, steps
        self._running = False

    @contextlib.contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Around one step's work on the host; a step of the trace gets its number."""
        if self._steps and not self._running and self._steps[0] <= step <= self._steps[1]:
            jax.profiler.start_trace(self._folder)
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def after(self, step: int, result: Any) -> None:
        """Ends the trace with its last step, whose `result` is waited for."""
        if self._running and step >= self._steps[1]:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Writes a trace that a run's end cut short."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
