"""Ends a run that has come to a standstill, and says where each of its threads stood.

A process that dies is missed by the others within a minute (`processes`). One that lives but waits
for ever, in a read from a disk that no longer answers or for a device that hangs, would keep the
whole slice waiting with it. Here every process watches its own steps, so all of them end, and what
they print tells the one that was stuck from those that waited for it.
"""

import faulthandler
import os
import sys
import threading
from typing import Self

_TICK_S = 1.0


class StallWatch:
    """Around the steps of a run: ends the process, status 1, after `minutes` without one; 0: never.

    Time in which the whole process is stopped, as by Ctrl-Z, does not count.
    """

    def __init__(self, minutes: float, who: str):
        self._limit_s, self._who = 60 * minutes, who
        self._waited_s = 0.0
        self._over = threading.Event()

    def __enter__(self) -> Self:
        if self._limit_s:
            threading.Thread(target=self._watch, name="stall watch", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()

    def moved(self) -> None:
        """One more step is on its way, or some other long work is done."""
        self._waited_s = 0.0

    def _watch(self) -> None:
        while not self._over.wait(_TICK_S):
            self._waited_s += _TICK_S  # ticks, not the clock, which runs on in a stopped process
            if self._waited_s >= self._limit_s:
                self._end()

    def _end(self) -> None:
        print(
            f"{self._who}: no step for {self._limit_s / 60:g} minutes (stall_minutes), so it ends; "
            "the same command goes on from the newest checkpoint. Its threads stood at:",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(all_threads=True)
        os._exit(1)
