"""How far a build is, seen from the files that its tasks have finished."""

import sys
import threading

from data_pipelines import progress_bar
from data_pipelines.building.staging import Job

# Step to the folder and the kind of file that each of its tasks leaves.
_DONE = {
    "index": ("index", "index"),
    "merge": ("merged", "index"),
    "stage": ("units", "done"),
    "images": ("removals", "removals"),
    "texts": ("texts", "texts"),
    "repeats": ("repeats", "repeats"),
    "shards": ("shards", "json"),
}
_TTY_S, _LOG_S = 1.0, 15.0


class Progress:
    """A bar a step on a terminal, a line now and then in a log, while the block runs."""

    def __init__(self, job: Job):
        self._job = job
        self._bar = None
        self._step = ""
        self._interval_s = _TTY_S if sys.stderr.isatty() else _LOG_S
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def step(self, name: str, num_tasks: int) -> None:
        """The step before is over, `name` begins."""
        self._close()
        self._step = name
        self._bar = progress_bar.bar(num_tasks, name, "tasks")

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._ended.set()
        self._thread.join()
        self._close(completed=error[0] is None)

    def _watch(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._show()

    def _show(self) -> None:
        bar = self._bar
        if bar is None:
            return
        bar.n = len(self._job.files(*_DONE[self._step]))
        if self._step == "stage":
            chunks = len(self._job.files("chunks", "json"))
            bar.set_postfix_str(f"at most {chunks * self._job.records_per_chunk} records", False)
        bar.refresh()

    def _close(self, completed: bool = True) -> None:
        if self._bar is not None:
            if completed:
                self._show()
            self._bar.close()
            self._bar = None
