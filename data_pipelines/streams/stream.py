"""One dataset as an endless or single-pass series of batches, resumable from one number.

Every row is a function of its number (`rows.py`), so the position is the index of the next example,
counted from the first of the run over all epochs and processes, and a restart is constant in time,
on any number of processes and threads. Unusable records are counted, by reason.

Differs from the paper: batches are formed as it says, but it does not describe restarts.
"""

import atexit
import collections
import os
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from data_pipelines.errors import TooManyBadRecords
from data_pipelines.reading.bucket_files import READS_AT_ONCE
from data_pipelines.streams.rows import PADDING, Rows
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.batch import Batch, check
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.tokenizer import Tokenizer

_MIN_ROWS_FOR_SHARE = 100  # fewer rows say little about the share of bad ones
PREFETCHED_BATCHES = 2
_MOST_WORKERS = 16  # threads, where the config leaves their number open
_open: weakref.WeakSet["Stream"] = weakref.WeakSet()


class Stream:
    """Iterator of `Batch`es with `batch_size / process_count` rows.

    Media are pixels (`preprocessing`) or, given `features` by media id, those: float[P, E] or
    float[F, P, E]; rows of kind "text" have none, and take neither. With `repeat=False` the last
    batch is filled with empty rows. `state` is a dict that `state()` gave, on this or on another
    number of processes.
    """

    def __init__(
        self,
        config: StreamConfig,
        tokenizer: Tokenizer,
        *,
        preprocessing: ImagePreprocessing | None = None,
        features: Mapping[str, np.ndarray] | None = None,
        process_index: int = 0,
        process_count: int = 1,
        state: Mapping[str, Any] | None = None,
    ):
        _keep_tensorflow_off_the_accelerator()
        self.config = config
        self.rows = Rows(
            config,
            tokenizer,
            preprocessing=preprocessing,
            features=features,
            process_index=process_index,
            process_count=process_count,
        )
        self._num_batches = 0
        self._counts: collections.Counter[str] = collections.Counter()  # reasons; "" is good
        self._inherited: collections.Counter[str] = collections.Counter()
        self._last_messages: list[str] = []
        if state is not None:
            self._restore(state, keep_counts=process_index == 0)
        self._iterator = self._dataset().as_numpy_iterator()
        _open.add(self)

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Batch:
        """Raises TooManyBadRecords once the share of skipped rows passes `max_skipped_share`.

        Also OSError, for a fault of the disk or the network that did not pass.
        """
        try:
            *arrays, reasons, messages = next(self._iterator)
        except StopIteration:
            if self._num_batches and not self._counts[""]:
                raise TooManyBadRecords(self._complaint()) from None
            raise
        except tf.errors.OpError as error:
            raise self.rows.fault or error from None
        self._num_batches += 1
        self._counts.update(r.decode() for r in reasons.ravel().tolist() if r != PADDING)
        told = [m.decode() for m in messages.ravel().tolist() if m]
        self._last_messages = told[:2] or self._last_messages
        skipped, seen = self._counts.total() - self._counts[""], self._counts.total()
        if seen >= _MIN_ROWS_FOR_SHARE and skipped > self.config.max_skipped_share * seen:
            raise TooManyBadRecords(self._complaint())
        return check(Batch(*arrays))

    @property
    def examples(self) -> int:
        """Good examples handed out, those before a restart included, by this process."""
        return self._counts[""] + self._inherited[""]

    @property
    def skipped(self) -> dict[str, int]:
        """Unusable records by reason, as `examples` counts."""
        return {r: n for r, n in sorted((self._counts + self._inherited).items()) if r}

    def state(self) -> dict[str, Any]:
        """The place after the last batch handed out, as JSON values.

        `next_index` is the same on all processes; `examples` and `skipped` are one process's own,
        and those of process 0 go on after a restart, so save its state, with counts summed.
        """
        a_batch = self.config.batch_size * self.config.pairs_per_row
        place, num_records = self.rows.start + self._num_batches * a_batch, len(self.rows.records)
        return {
            "next_index": place if self.config.repeat else min(place, num_records),
            "examples": self.examples,
            "skipped": self.skipped,
            "num_records": num_records,
            "seed": self.config.seed,
        }

    def close(self) -> None:
        """Stops the reading threads."""
        self._iterator = iter(())

    def _restore(self, state: Mapping[str, Any], keep_counts: bool) -> None:
        for field, here in (("num_records", len(self.rows.records)), ("seed", self.config.seed)):
            if state[field] != here:
                raise ValueError(
                    f"{self.config.name}: the saved position is for {field}={state[field]}, the "
                    f"config has {here}: restore it with the same dataset and seed, or start anew"
                )
        self.rows.start = state["next_index"]
        if keep_counts:
            self._inherited.update({"": state["examples"], **state["skipped"]})

    def _dataset(self) -> tf.data.Dataset:
        config, rows = self.config, self.rows
        told = [((config.pairs_per_row,), tf.string)] * 2  # reasons and messages
        spec = [(shape, tf.as_dtype(dtype)) for shape, dtype in rows.spec] + told

        def fetch(number: tf.Tensor) -> tf.Tensor:
            def fetched(number: np.int64) -> np.int64:
                rows.fetch(int(number))
                return number

            return tf.numpy_function(fetched, [number], tf.int64)

        def make(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
            dtypes = [dtype for _, dtype in spec]
            arrays = tf.numpy_function(lambda n: rows.make(int(n)), [number], dtypes)
            for array, (shape, _) in zip(arrays, spec, strict=True):
                array.set_shape(shape)
            return tuple(arrays)

        options = tf.data.Options()
        options.autotune.enabled = False
        num_workers = config.num_workers or min(_num_cores(), _MOST_WORKERS)
        num_readers = READS_AT_ONCE if rows.records.in_bucket else 0
        options.threading.private_threadpool_size = num_workers + num_readers
        dataset = tf.data.Dataset.range(1 << 62 if config.repeat else len(rows))
        if num_readers:
            dataset = dataset.map(fetch, num_parallel_calls=num_readers, deterministic=True)
        dataset = dataset.map(make, num_parallel_calls=num_workers, deterministic=True)
        dataset = dataset.batch(rows.a_batch, drop_remainder=True).prefetch(PREFETCHED_BATCHES)
        return dataset.with_options(options)

    def _complaint(self) -> str:
        seen, messages = self._counts.total(), "; ".join(self._last_messages)
        reasons = {reason: count for reason, count in self._counts.items() if reason}
        return (
            f"{self.config.name}: {seen - self._counts['']} of {seen} records are unusable, more "
            f"than max_skipped_share={self.config.max_skipped_share}: {reasons}; the last are "
            f"[{messages}]. Mend or rebuild {self.config.data_dir}, or allow a larger share"
        )


@atexit.register
def _close_all() -> None:
    """Else a thread that comes back from reading finds no interpreter, and the process aborts."""
    for stream in list(_open):
        stream.close()


def _num_cores() -> int:
    """Those that a scheduler leaves to this process, where the system tells."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _keep_tensorflow_off_the_accelerator() -> None:
    """TensorFlow reads data here; left alone it would take the GPU's memory from JAX."""
    if tf.config.get_visible_devices("GPU"):
        tf.config.set_visible_devices([], "GPU")
