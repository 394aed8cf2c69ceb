"""The points of a sweep run here, so many at a time; none stops the others.

What a point says goes to `output.log` of its folder, which stays locked as long as anything that
the point has started lives: so a second sweep, or one after a kill, starts no second process there.
"""

import collections
import dataclasses
import fcntl
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from launch.sweep_folder import Folder

SLOT = "{slot}"  # stands for 0 to N-1 in a command: which of the N at a time it is
_KILLED = 128  # a shell's status of a process that a signal ended is this and the signal's number


@dataclasses.dataclass(frozen=True)
class Job:
    """A point that is to be run, by its number among all points."""

    number: int
    folder: Folder
    command: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a job ended: its status as a shell gives it, or why there is none."""

    job: Job
    slot: int
    status: int
    wall_s: float = 0.0
    why: str = ""


class Runs:
    """Jobs in their order, at most `parallel` at a time."""

    def __init__(
        self,
        parallel: int,
        started: Callable[[Job], None],
        ended: Callable[[Ended], None],
        signalled: Callable[[signal.Signals, int], None],
    ):
        self._parallel = parallel
        self._tell_started, self._tell_ended, self._tell_signalled = started, ended, signalled
        self._queue: queue.SimpleQueue[Ended | signal.Signals] = queue.SimpleQueue()
        self._processes: dict[int, subprocess.Popen] = {}  # by slot
        self.signal: signal.Signals | None = None  # the first that came; nothing starts after it

    def run(self, jobs: Sequence[Job]) -> None:
        """Until the last has ended, or those that ran when a signal came."""
        before = {s: signal.signal(s, self._pass_on) for s in (signal.SIGTERM, signal.SIGINT)}
        waiting, slots = collections.deque(jobs), list(range(self._parallel))
        running = 0
        try:
            while running or (waiting and not self.signal):
                while slots and waiting and not self.signal:
                    self._start(waiting.popleft(), slots.pop(0))
                    running += 1
                came = self._queue.get()
                if isinstance(came, signal.Signals):
                    self._tell_signalled(came, running)
                    continue
                running -= 1
                self._processes.pop(came.slot, None)
                slots = sorted([*slots, came.slot])
                self._tell_ended(came)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self, job: Job, slot: int) -> None:
        job.folder.here.mkdir(parents=True, exist_ok=True)
        command = [word.replace(SLOT, str(slot)) for word in job.command]
        with job.folder.output.open("ab") as output:
            try:
                fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._queue.put(
                    Ended(job, slot, 1, why="another process runs it still: wait, or end that one")
                )
                return
            except OSError:
                pass  # a file system without locks
            try:
                job.folder.begin()
            except OSError as error:
                self._queue.put(Ended(job, slot, 1, why=str(error)))
                return
            try:
                process = subprocess.Popen(
                    command,
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C comes to us alone, and is passed on
                )
            except OSError as error:
                why = f"{command[0]} cannot be started ({error.strerror})"
                self._queue.put(Ended(job, slot, 1, why=why))
                return
        self._processes[slot] = process
        if self.signal:  # came while it was starting
            process.send_signal(self.signal)
        self._tell_started(job)
        threading.Thread(target=self._await, args=(job, slot, process), daemon=True).start()

    def _await(self, job: Job, slot: int, process: subprocess.Popen) -> None:
        began_s = time.monotonic()
        code = process.wait()
        status = _KILLED - code if code < 0 else code
        self._queue.put(Ended(job, slot, status, time.monotonic() - began_s))

    def _pass_on(self, number: int, _frame: object) -> None:
        self.signal = self.signal or signal.Signals(number)
        for process in list(self._processes.values()):
            if process.poll() is None:
                process.send_signal(number)
        self._queue.put(signal.Signals(number))  # a handler should not print
