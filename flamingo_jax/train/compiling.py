"""How long JAX spends on tracing, lowering and compiling, so that a row of metrics can tell.

Every recompilation of a run is seen in it, and the report's share of time spent stepping leaves it
out. A read of the persistent compilation cache counts as compiling.
"""

import jax

_EVENTS = "/jax/core/compile/"


class CompileTime:
    """Seconds since `start`, nested events counted once."""

    def __init__(self):
        self._until = 0.0  # the end of what is counted
        self._spans: list[tuple[float, float]] = []

    def start(self) -> "CompileTime":
        """Listens from now on, for the rest of the process."""
        jax.monitoring.register_event_time_span_listener(self._add)
        return self

    def seconds(self) -> float:
        """The time between calls of this method that went into compiling."""
        spans, self._spans = sorted(self._spans), []
        total = 0.0
        for begin, end in spans:
            begin = max(begin, self._until)
            total += max(0.0, end - begin)
            self._until = max(self._until, end)
        return total

    def _add(self, event: str, start_time: float, end_time: float, **_: object) -> None:
        if event.startswith(_EVENTS):
            self._spans.append((start_time, end_time))
