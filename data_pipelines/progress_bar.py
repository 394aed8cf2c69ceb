"""How far long work is: a bar on a terminal, a plain line now and then in a log.

Without tqdm, which the core does not install, a terminal gets lines too.
"""

import sys
import time
from typing import Any

_LINE_EVERY_S = 10.0


class Lines:
    """As much of a tqdm bar as is used here, in lines of their own."""

    def __init__(self, total: int, doing: str, unit: str):
        self.total, self.n = total, 0
        self._doing, self._unit, self._postfix = doing, unit, ""
        self._start_s = self._last_s = time.monotonic()
        self._written: int | None = None

    def update(self, number: int = 1) -> None:
        """`number` more are done."""
        self.n += number
        if time.monotonic() - self._last_s >= _LINE_EVERY_S:
            self.refresh()

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """What stands at the line's end from now on."""
        self._postfix = f", {text}" if text else ""
        if refresh:
            self.refresh()

    def refresh(self) -> None:
        """Writes a line."""
        self._last_s, self._written = time.monotonic(), self.n
        spent = f"{self._last_s - self._start_s:.0f} s"
        line = f"{self._doing}: {self.n} of {self.total} {self._unit} in {spent}{self._postfix}"
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Writes the last line, unless it stands there."""
        if self._written != self.n:
            self.refresh()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def bar(total: int, doing: str, unit: str) -> Any:
    """Shows `doing`, and how many of `total` things called `unit` are done, on standard error."""
    if not sys.stderr.isatty():
        return Lines(total, doing, unit)
    try:
        import tqdm
    except ImportError:
        return Lines(total, doing, unit)
    return tqdm.tqdm(total=total, desc=doing, unit=f" {unit}", dynamic_ncols=True)
