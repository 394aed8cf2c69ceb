"""One dataset's rows, each a pure function of the config and of its number in the run.

    row -> example index -> shuffled record number -> bytes -> sequence -> pixels or features

Batch k is the `batch_size` rows from row `k * batch_size` on, of which process p of n makes the
p-th n-th, and row r is example r, or where pairs share rows the `pairs_per_row` from that many
times r on. So examples and their order are the same on any number of processes and threads.

A record that cannot be used leaves an empty row (`token_mask` False throughout), or its place in a
shared row, and its reason is told. Filling the place with the next good record would make each
process's position depend on the bad records of all others, so that a run could not go on with
another number of processes. Bad records belong out of the dataset when it is built; here they are
survived.

Differs from the paper: sequences are formed as it says, but it does not describe order or epochs.
"""

import zlib
from collections.abc import Mapping

import numpy as np

from data_pipelines.errors import BadRecord
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
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.images import BadMedia
from flamingo_jax.tokenizer import Tokenizer

PADDING = b"padding"  # reason of a row behind the last record, which is no bad one


class Rows:
    """Rows of process `process_index`, numbered from its first one after example `start`.

    Media are pixels (`preprocessing`) or, given `features` by media id, those; rows of kind "text"
    have none, and take neither.
    """

    def __init__(
        self,
        config: StreamConfig,
        tokenizer: Tokenizer,
        *,
        preprocessing: ImagePreprocessing | None,
        features: Mapping[str, np.ndarray] | None,
        process_index: int,
        process_count: int,
    ):
        if config.batch_size % process_count:
            raise ValueError(
                f"{config.name}: batch_size={config.batch_size} does not divide among "
                f"{process_count} processes"
            )
        self.config, self.a_batch = config, config.batch_size // process_count
        self.start = 0
        self.records = RecordIndex(shard_slices(config.data_dir, config.split, config.name))
        if len(self.records) < process_count:
            raise ValueError(
                f"{config.name}: {len(self.records)} examples for {process_count} processes: give "
                "a split with at least one for each, or use fewer processes"
            )
        self._media_of = _media(config, preprocessing, features)
        self._tokenizer = tokenizer
        self._process_index = process_index
        self._reader = ReadAhead(self.records, self.record_number)

    def __len__(self) -> int:
        """How many are left of a single pass; the last batch is filled with empty ones."""
        num_left = max(0, len(self.records) - self.start)
        return -(-num_left // (self.config.batch_size * self.config.pairs_per_row)) * self.a_batch

    @property
    def spec(self) -> list[tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of each array that `make` returns but for the last two."""
        config, media = self.config, self._media_of
        text, places = (config.num_tokens,), (config.num_media, *media.shape)
        shapes = [(text, np.int32), (text, bool), (text, bool), (text, np.int32)]
        shapes += [(places, media.dtype), (places[:2], bool)]
        shapes += [(text, np.int32)] * (config.pairs_per_row > 1)
        return [(shape, np.dtype(dtype)) for shape, dtype in shapes]

    @property
    def fault(self) -> Exception | None:
        """Of the disk or the network, where one ended the reading."""
        return self._reader.fault

    def record_number(self, index: int) -> int:
        """Which of `records` example `index` is made of, counted from the start of the run."""
        epoch, place = divmod(index, len(self.records))
        if not self.config.shuffle:
            return place
        return shuffled(place, len(self.records), f"{self.config.seed}/{self.config.name}/{epoch}")

    def fetch(self, number: int) -> None:
        """Fetches the records of row `number`, before it is made."""
        first = self._first_example(number)
        for index in range(first, first + self.config.pairs_per_row):
            if index < len(self.records) or self.config.repeat:
                self._reader.fetch(index)

    def make(self, number: int) -> tuple[np.ndarray, ...]:
        """The fields of a `Batch` for row `number`; of its examples the reasons ("" is good) and
        messages, bytes[pairs_per_row] each."""
        config = self.config
        n = config.pairs_per_row
        first = self._first_example(number)
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
            return None, PADDING, b""
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

    def _first_example(self, number: int) -> int:
        """Since the first of the run, in this process's row `number`."""
        batch, row = divmod(number, self.a_batch)
        row += batch * self.config.batch_size + self._process_index * self.a_batch
        return self.start + row * self.config.pairs_per_row


def _media(
    config: StreamConfig,
    preprocessing: ImagePreprocessing | None,
    features: Mapping[str, np.ndarray] | None,
) -> Pixels | CachedFeatures | NoMedia:
    if config.kind == "text":
        return NoMedia()
    if (preprocessing is None) == (features is None):
        raise ValueError(f"{config.name}: give either preprocessing or features")
    if features is not None and (config.flip or config.color):
        raise ValueError(
            f"{config.name}: flip={config.flip} and color={config.color} change pixels, but "
            "features were computed before: set both to 0, or give preprocessing"
        )
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
