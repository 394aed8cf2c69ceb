"""The numbers of a run: one row each logged step, kept as JSON lines.

A row has `step`, `loss`, `loss/<dataset>`, `grad_norm`, `lr`, `step_time_s`, `data_wait_s`,
`tokens_per_s`, `images_per_s`, `tflops_per_s_per_device`, `mfu` (None where the device's peak is
not known), `num_steps` that these are means of, `compile_s` that went into compiling among them,
`hbm_gib` and `hbm_peak_gib` (None where a device does not count), and `gate/<layer>`, the value
that multiplies the block's output: tanh of the parameter, scaled where the config scales it. Not in
the paper, but its per-layer gates are (appendix on model ablations). Where a step was validated
there are also the entries of `experiments/training/validation.py`.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from flamingo_jax.batch import Batch

Row = Mapping[str, Any]  # str -> a number, or an array of no dimensions, or None

Rows = Sequence[Mapping[str, Any]]

FILE_NAME = "metrics.jsonl"


class MetricsWriter(Protocol):
    """Where rows go; `JsonlWriter` here, TensorBoard events in `experiments`."""

    def write(self, row: Row) -> None: ...

    def close(self) -> None: ...


class JsonlWriter:
    """Appends rows to a file, each on disk before `write` returns.

    A run that resumes from step `restored_step` writes the later rows again, so those that are
    there are dropped first, as is a last line that a killed run left half written. A new run
    (`restored_step=0`) starts the file anew.
    """

    def __init__(self, path: str | os.PathLike[str], restored_step: int = 0):
        path = Path(path)
        resumes = restored_step > 0 and path.exists()
        rows = [r for r in read_rows(path) if r["step"] <= restored_step] if resumes else []
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = path.with_name(f"{path.name}.tmp")
        kept.write_text("".join(_to_line(row) for row in rows))
        os.replace(kept, path)
        self._file = path.open("a")

    def write(self, row: Row) -> None:
        """Writes one row; ValueError without an integer `step`, or on a value not a number."""
        self._file.write(_to_line(to_numbers(row)))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a metrics file. A half-written last line is skipped; elsewhere, ValueError."""
    lines = Path(path).read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or type(row.get("step")) is not int:
                raise ValueError("no step")
        except ValueError:
            if number == len(lines):  # a whole row ends with a newline
                break
            raise ValueError(
                f"{path}:{number} is not a row with a step: remove that line to go on"
            ) from None
        rows.append(row)
    return rows


def to_numbers(row: Row) -> dict[str, Any]:
    """The row with plain ints, floats and None; arrays of no dimensions become floats.

    A value that is not finite becomes None and is named in `not_finite`, as JSON has no NaN.
    """
    step = row.get("step")
    if isinstance(step, bool) or not hasattr(step, "__index__"):
        raise ValueError(f"metrics row: step={step!r}, want an integer")
    plain: dict[str, Any] = {"step": int(step)}
    not_finite = []
    for key, value in row.items():
        if key == "step":
            continue
        if value is not None and type(value) is not int:
            try:
                value = float(value)
            except (TypeError, ValueError):
                raise ValueError(f"metrics row: {key}={value!r}, want a number or None") from None
            if not math.isfinite(value):
                not_finite.append(key)
                value = None
        plain[key] = value
    return plain | ({"not_finite": not_finite} if not_finite else {})


def stepping_s(rows: Rows) -> float:
    """Seconds that the rows' steps took without compiling: what a run is for.

    Steps that were lost when a run was killed are in no row. Rows without times count nothing.
    """
    return sum(
        max(0.0, row["num_steps"] * row["step_time_s"] - (row.get("compile_s") or 0.0))
        for row in rows
        if row.get("step_time_s") is not None and row.get("num_steps") is not None
    )


class Window:
    """The steps since the last row: their time, data and speed. Steps run behind the host, so
    only the time between two waits for the device is a step's; the first window compiles."""

    def __init__(self):
        self._open()

    def _open(self) -> None:
        self._began_s = time.perf_counter()
        self._waited_s = 0.0
        self._steps = self._tokens = self._images = self._frames = 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for data."""
        began_s = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - began_s

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is no step and is begun when the device waits, such as validation."""
        began_s = time.perf_counter()
        yield
        self._began_s += time.perf_counter() - began_s

    def count(self, batches: Mapping[str, Batch]) -> None:
        """One more step, with the real tokens and pictures of its batches (on the host)."""
        self._steps += 1
        self._tokens += sum(int(b.token_mask.sum()) for b in batches.values())
        self._images += sum(int(b.media_mask.any(-1).sum()) for b in batches.values())
        self._frames += sum(int(b.media_mask.sum()) for b in batches.values())

    def counts(self) -> dict[str, float]:
        """What this process saw: `tokens`, `images`, `frames`, and `waited_s` for its data."""
        return {
            "tokens": self._tokens,
            "images": self._images,
            "frames": self._frames,
            "waited_s": self._waited_s,
        }

    def close(
        self,
        *,
        flops: float,
        flops_per_frame: float = 0.0,
        num_devices: int,
        peak_tflops_per_s: float | None = None,
        counts: Mapping[str, float] | None = None,
    ) -> dict[str, float | None]:
        """The speed entries of a row, means over the steps; the next window begins.

        `flops` is what one step must compute on all devices, not counting what remat computes
        again nor, where the encoder runs in the step, `flops_per_frame` of each real frame; the
        peak is one device's, and without it `mfu` is None. `counts` are those of all
        processes together, where there are several.
        """
        counts = counts or self.counts()
        step_time_s = (time.perf_counter() - self._began_s) / self._steps
        flops += flops_per_frame * counts["frames"] / self._steps
        tflops = flops / step_time_s / num_devices / 1e12
        row = {
            "num_steps": self._steps,
            "step_time_s": step_time_s,
            "data_wait_s": counts["waited_s"] / self._steps,
            "tokens_per_s": counts["tokens"] / self._steps / step_time_s,
            "images_per_s": counts["images"] / self._steps / step_time_s,
            "tflops_per_s_per_device": tflops,
            "mfu": tflops / peak_tflops_per_s if peak_tflops_per_s else None,
        }
        self._open()
        return row


def _to_line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
