"""The rows of a training run: what the step measured, and how fast, full and sound the run is.

With several processes a row speaks of all of them: counts are added up, waiting and memory are
those of the process that has most. Process 0 writes it.
"""

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from data_pipelines.streams.mixture import Mixture
from experiments import cli
from experiments.training import processes
from experiments.training.tensorboard import TensorBoardWriter
from flamingo_jax.batch import Batch
from flamingo_jax.train import accelerator, metrics
from flamingo_jax.train.compiling import CompileTime

Json = dict[str, Any]


class RunLog:
    """Counts steps, and turns what was counted into rows.

    `share` tells which rows of the batch this process reads: processes with the same count once.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        start: int,
        *,
        share: int,
        flops: float,  # of one step on all devices, without the encoder
        flops_per_frame: float,  # of the encoder, where it runs in the step
        num_devices: int,
        compute_dtype: str,
    ):
        self._share, self._num_devices = share, num_devices
        self._flops, self._flops_per_frame = flops, flops_per_frame
        kind = jax.local_devices()[0].device_kind
        self._peak = accelerator.peak_tflops_per_s(kind, compute_dtype)
        self._compiling = CompileTime().start()
        self._compile_s = 0.0  # since the last row, before the last pause
        self.writers: list[metrics.MetricsWriter] = []
        if processes.is_first():
            self.writers.append(metrics.JsonlWriter(workdir / metrics.FILE_NAME, start))
            self.writers.append(TensorBoardWriter(workdir))
        self.window = metrics.Window()

    def count(self, batches: Mapping[str, Batch]) -> None:
        """One more step, with this process's rows of its batches, on the host."""
        self.window.count(batches)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is no step: neither its time nor its compiling is counted."""
        self._compile_s += self._compiling.seconds()
        with self.window.paused():
            yield
        self._compiling.seconds()

    def write(self, row: metrics.Row, data: Mixture) -> metrics.Row:
        """Completes a row with what was counted since the last one, and writes it.

        The row's arrays must have been waited for. All processes must call it.
        """
        mine = {
            "share": self._share,
            "window": self.window.counts(),
            "memory": accelerator.memory(jax.local_devices()),
            "data": data.state(),
        }
        everyone = processes.gather(mine)
        readers = one_of_each_share(everyone)
        counts = {
            "tokens": sum(r["window"]["tokens"] for r in readers),
            "images": sum(r["window"]["images"] for r in readers),
            "frames": sum(r["window"]["frames"] for r in readers),
            "waited_s": max(e["window"]["waited_s"] for e in everyone),
        }
        speed = self.window.close(
            flops=self._flops,
            flops_per_frame=self._flops_per_frame,
            num_devices=self._num_devices,
            peak_tflops_per_s=self._peak,
            counts=counts,
        )
        place = total_place(r["data"] for r in readers)
        row = {
            **row,
            **speed,
            "compile_s": self._compile_s + self._compiling.seconds(),
            **{key: _most(e["memory"][key] for e in everyone) for key in mine["memory"]},
            **{f"skipped/{name}": sum(p["skipped"].values()) for name, p in place.items()},
        }
        self._compile_s = 0.0
        for writer in self.writers:
            writer.write(row)
        return row

    def place(self, data: Mixture) -> Json:
        """The place in the data for a checkpoint: counts of all processes; all must call it."""
        everyone = processes.gather({"share": self._share, "data": data.state()})
        return total_place(reader["data"] for reader in one_of_each_share(everyone))


def check_finite(row: metrics.Row) -> None:
    """Stops a run whose loss or gradient is no number, before parameters are saved that are none.

    Waits for the step. Finite numbers and a finite gradient give finite numbers.
    """
    for name in ("loss", "grad_norm"):
        if not np.isfinite(row[name]):
            raise cli.UserError(
                f"step {row['step']}: {name} is {float(row[name])}: lower optim.learning_rate, or "
                "look at the data with data_pipelines.inspect; what was saved before is sound"
            )


def one_of_each_share(everyone: Iterable[Json]) -> list[Json]:
    """What was gathered, without the processes that read the same rows as another."""
    return list({one["share"]: one for one in everyone}.values())


def total_place(states: Iterable[Json]) -> Json:
    """`Mixture.state()`s of several readers as that of one: counts added up."""
    first, *others = states
    total = {name: {**place, "skipped": dict(place["skipped"])} for name, place in first.items()}
    for state in others:
        for name, place in state.items():
            total[name]["examples"] += place["examples"]
            for reason, count in place["skipped"].items():
                total[name]["skipped"][reason] = total[name]["skipped"].get(reason, 0) + count
    return total


def _most(values: Iterable[float | None]) -> float | None:
    values = list(values)
    return None if None in values else max(values)
