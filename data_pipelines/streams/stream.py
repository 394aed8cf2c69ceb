"""One dataset as an endless or single-pass series of batches, resumable from one number.

    index -> shuffled record number -> bytes -> sequence -> pixels or features -> batch

Every step is a pure function of the config and the example's index, counted from the first example
of the run over all epochs and processes. So the position is that index, a restart is constant in
time, and the examples and their order are the same on any number of processes and threads: batch k
is the `batch_size` rows from row `k * batch_size` on, of which process p of n makes the p-th n-th,
and row r is example r, or where pairs share rows the `pairs_per_row` from that many times r on.

A record that cannot be used leaves an empty row (`token_mask` False throughout) in its batch, or
its place in a shared row, and its reason is counted. Filling the place with the next good record
would make each process's position depend on the bad records of all others, so that a run could not
go on with another number of processes. Bad records belong out of the dataset when it is built; here
they are survived.

Differs from the paper: sequences and batches are formed as it says, but it does not describe order,
epochs or restarts.
"""

import atexit
import collections
import os
import weakref
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from data_pipelines.errors import BadRecord, TooManyBadRecords
from data_pipelines.reading.bucket_files import READS_AT_ONCE
from data_pipelines.reading.order import shuffled
from data_pipelines.reading.read_ahead import ReadAhead
from data_pipelines.reading.record_index import RecordIndex
from data_pipelines.reading.splits import shard_slices
from data_pipelines.streams.examples import (
    CachedFeatures,
    NoMedia,
    Pixels,
    Record,
    answer_start,
    parse_record,
)
from data_pipelines.streams.packing import pack
from data_pipelines.streams.sequences import (
    TrainingSequence,
    answer_sequence,
    page_sequence,
    pair_sequence,
    text_sequence,
)
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.batch import Batch, check
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.images import BadMedia
from flamingo_jax.tokenizer import Tokenizer

_PADDING = b"padding"  # reason of a row behind the last record; not counted as skipped
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
        if config.kind == "text":
            preprocessing = features = None
        elif (preprocessing is None) == (features is None):
            raise ValueError(f"{config.name}: give either preprocessing or features")
        if features is not None and (config.flip or config.color):
            raise ValueError(
                f"{config.name}: flip={config.flip} and color={config.color} change pixels, but "
                "features were computed before: set both to 0, or give preprocessing"
            )
        if config.batch_size % process_count:
            raise ValueError(
                f"{config.name}: batch_size={config.batch_size} does not divide among "
                f"{process_count} processes"
            )
        _keep_tensorflow_off_the_accelerator()
        self.config = config
        self.records = RecordIndex(shard_slices(config.data_dir, config.split, config.name))
        if len(self.records) < process_count:
            raise ValueError(
                f"{config.name}: {len(self.records)} examples for {process_count} processes: give "
                "a split with at least one for each, or use fewer processes"
            )
        self._tokenizer = tokenizer
        self._media_of = _media(config, preprocessing, features)
        self._process_index = process_index
        self._rows = config.batch_size // process_count
        self._start = 0
        self._num_batches = 0
        self._counts: collections.Counter[str] = collections.Counter()  # reasons; "" is good
        self._inherited: collections.Counter[str] = collections.Counter()
        self._last_messages: list[str] = []
        self._reader = ReadAhead(self.records, self.record_number)
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
            raise self._reader.fault or error from None
        self._num_batches += 1
        self._counts.update(r.decode() for r in reasons.ravel().tolist() if r != _PADDING)
        self._last_messages = [m.decode() for m in messages.ravel().tolist() if m][
            :2
        ] or self._last_messages
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

    def record_number(self, index: int) -> int:
        """Which of `records` example `index` is made of, counted from the start of the run."""
        epoch, place = divmod(index, len(self.records))
        if not self.config.shuffle:
            return place
        return shuffled(place, len(self.records), f"{self.config.seed}/{self.config.name}/{epoch}")

    def state(self) -> dict[str, Any]:
        """The place after the last batch handed out, as JSON values.

        `next_index` is the same on all processes; `examples` and `skipped` are one process's own,
        and those of process 0 go on after a restart, so save its state, with counts summed.
        """
        a_batch = self.config.batch_size * self.config.pairs_per_row
        next_index = self._start + self._num_batches * a_batch
        return {
            "next_index": next_index if self.config.repeat else min(next_index, len(self.records)),
            "examples": self.examples,
            "skipped": self.skipped,
            "num_records": len(self.records),
            "seed": self.config.seed,
        }

    def close(self) -> None:
        """Stops the reading threads."""
        self._iterator = iter(())

    def _restore(self, state: Mapping[str, Any], keep_counts: bool) -> None:
        for field, here in (("num_records", len(self.records)), ("seed", self.config.seed)):
            if state[field] != here:
                raise ValueError(
                    f"{self.config.name}: the saved position is for {field}={state[field]}, the "
                    f"config has {here}: restore it with the same dataset and seed, or start anew"
                )
        self._start = state["next_index"]
        if keep_counts:
            self._inherited.update({"": state["examples"], **state["skipped"]})

    def _dataset(self) -> tf.data.Dataset:
        config, media = self.config, self._media_of
        num_rows = 1 << 62
        if not config.repeat:
            num_left = max(0, len(self.records) - self._start)
            num_rows = -(-num_left // (config.batch_size * config.pairs_per_row)) * self._rows
        t, m, n = config.num_tokens, (config.num_media, *media.shape), config.pairs_per_row
        spec = [
            ((t,), tf.int32),
            ((t,), tf.bool),
            ((t,), tf.bool),
            ((t,), tf.int32),
            (m, tf.as_dtype(media.dtype)),
            (m[:2], tf.bool),
            *([((t,), tf.int32)] if n > 1 else []),
            ((n,), tf.string),
            ((n,), tf.string),
        ]

        def row(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
            arrays = tf.numpy_function(self._row, [number], [dtype for _, dtype in spec])
            for array, (shape, _) in zip(arrays, spec, strict=True):
                array.set_shape(shape)
            return tuple(arrays)

        options = tf.data.Options()
        options.autotune.enabled = False
        num_workers = config.num_workers or min(_num_cores(), _MOST_WORKERS)
        num_readers = READS_AT_ONCE if self.records.in_bucket else 0
        options.threading.private_threadpool_size = num_workers + num_readers
        dataset = tf.data.Dataset.range(num_rows)
        if num_readers:
            dataset = dataset.map(
                lambda number: tf.numpy_function(self._fetch, [number], tf.int64),
                num_parallel_calls=num_readers,
                deterministic=True,
            )
        dataset = dataset.map(row, num_parallel_calls=num_workers, deterministic=True)
        dataset = dataset.batch(self._rows, drop_remainder=True).prefetch(PREFETCHED_BATCHES)
        return dataset.with_options(options)

    def _first_example(self, number: int) -> int:
        """Since the first of the run, in this process's row `number`."""
        batch, row = divmod(number, self._rows)
        row += batch * self.config.batch_size + self._process_index * self._rows
        return self._start + row * self.config.pairs_per_row

    def _fetch(self, number: np.int64) -> np.int64:
        """Fetches the records of row `number`, before it is made."""
        first = self._first_example(int(number))
        for index in range(first, first + self.config.pairs_per_row):
            if index < len(self.records) or self.config.repeat:
                self._reader.fetch(index)
        return number

    def _row(self, number: np.int64) -> tuple:
        """The arrays of this process's row `number` since the start, its reasons and messages."""
        config = self.config
        n = config.pairs_per_row
        first = self._first_example(int(number))
        media = np.zeros((config.num_media, *self._media_of.shape), self._media_of.dtype)
        media_mask = np.zeros(media.shape[:2], bool)
        per_example = config.num_media // n  # all of a page, one of a pair
        slots = [slice(i, i + per_example) for i in range(n)]
        found = [self._example(first + i, media[s], media_mask[s]) for i, s in enumerate(slots)]
        sequences, reasons, messages = zip(*found, strict=True)
        told = np.array(reasons, object), np.array(messages, object)
        texts = sequences[0]
        if n > 1 or texts is None:
            texts = pack(sequences, config.num_tokens, self._tokenizer.pad_id)
        arrays = texts.tokens, texts.token_mask, texts.loss_mask, texts.media_index
        segments = [texts.segments] if n > 1 else []
        return (*arrays, media, media_mask, *segments, *told)

    def _example(
        self,
        index: int,
        media: np.ndarray,  # [M, F, ...] zeros, filled in place
        media_mask: np.ndarray,  # bool[M, F]
    ) -> tuple[TrainingSequence | None, bytes, bytes]:  # reason and message of a None
        """Example `index` since the first of the run."""
        config = self.config
        if index >= len(self.records) and not config.repeat:
            return None, _PADDING, b""
        place = self.record_number(index)
        try:
            record = parse_record(self._reader.take(index))
            rng = np.random.default_rng([config.seed, zlib.crc32(config.name.encode()), index])
            sequence = self._sequence(record, rng)
            for slot, kept in enumerate(sequence.kept_media.tolist()):
                frames = self._media_of(record, kept, rng)
                media[slot, : len(frames)] = frames
                media_mask[slot, : len(frames)] = True
        except (BadRecord, BadMedia) as error:
            media[:], media_mask[:] = 0, False
            return None, error.reason.encode(), f"record {place}: {error}".encode()
        return sequence, b"", b""

    def _sequence(self, record: Record, rng: np.random.Generator) -> TrainingSequence:
        config = self.config
        if config.kind == "text":
            return text_sequence(
                record.document,
                self._tokenizer,
                rng,
                num_tokens=config.num_tokens,
                random_window=config.random_window,
            )
        if config.kind == "page":
            return page_sequence(
                record.document,
                self._tokenizer,
                rng,
                num_tokens=config.num_tokens,
                max_media=config.max_media,
                p_next=config.p_next,
                random_window=config.random_window,
            )
        if config.kind == "answer":
            start = answer_start(record)
            return answer_sequence(
                record.document, start, self._tokenizer, num_tokens=config.num_tokens
            )
        return pair_sequence(
            record.document,
            self._tokenizer,
            rng,
            num_tokens=config.num_tokens,
            prepend_space=config.prepend_space,
            template=config.template,
            score_template=config.score_template,
        )

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


def _media(
    config: StreamConfig,
    preprocessing: ImagePreprocessing | None,
    features: Mapping[str, np.ndarray] | None,
) -> Pixels | CachedFeatures | NoMedia:
    if config.kind == "text":
        return NoMedia()
    if features is not None:
        return CachedFeatures(features)
    return Pixels(
        preprocessing,
        num_frames=config.num_frames,
        fps=config.fps,
        random_clip=config.random_window,
        flip=config.flip,
        color=config.color,
    )


def _keep_tensorflow_off_the_accelerator() -> None:
    """TensorFlow reads data here; left alone it would take the GPU's memory from JAX."""
    if tf.config.get_visible_devices("GPU"):
        tf.config.set_visible_devices([], "GPU")
