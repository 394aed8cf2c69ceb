"""Between a record's bytes and a row's arrays: parsing, and pixels or cached features of its media.

Parsing is done by protobuf's C code, 15 to 50 us a record and without TFDS's graph, and decoding by
Pillow and PyAV, which let other threads run; so several threads over these functions scale with
cores.
"""

import dataclasses
import json
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from data_pipelines.errors import BadRecord
from data_pipelines.records import ANSWER_START
from data_pipelines.streams import augmentation
from data_pipelines.streams.sequences import InterleavedText
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.images import decode_image
from flamingo_jax.videos import decode_video, is_video


@dataclasses.dataclass(frozen=True)
class Record:
    """One record as `data_pipelines.records` lays it out, media still compressed."""

    id: str
    document: InterleavedText
    media: tuple[bytes, ...]
    media_ids: tuple[str, ...]
    metadata: str  # JSON


def parse_record(data: bytes) -> Record:
    """A serialized `tf.train.Example`; BadRecord `bad_record` or `media_mismatch` if it is none."""
    try:
        features = tf.train.Example.FromString(data).features.feature
        record = Record(
            id=features["id"].bytes_list.value[0].decode(),
            document=InterleavedText(
                text=features["text"].bytes_list.value[0],
                media_positions=np.asarray(features["media_positions"].int64_list.value, np.int64),
            ),
            media=tuple(features["media"].bytes_list.value),
            media_ids=tuple(name.decode() for name in features["media_ids"].bytes_list.value),
            metadata=features["metadata"].bytes_list.value[0].decode(),
        )
    except Exception as error:  # protobuf, a missing field, not UTF-8
        raise BadRecord(
            "bad_record", f"{len(data)} bytes do not follow the record schema: {error!r}"
        ) from error
    counts = len(record.document.media_positions), len(record.media), len(record.media_ids)
    if len(set(counts)) > 1:
        raise BadRecord(
            "media_mismatch",
            f"{counts[0]} media positions, {counts[1]} media and {counts[2]} media ids",
        )
    return record


def answer_start(record: Record) -> int:
    """The byte of the text at which the answer begins; BadRecord `no_answer_start` for none."""
    try:
        return int(json.loads(record.metadata)[ANSWER_START])
    except (ValueError, TypeError, KeyError) as error:
        raise BadRecord(
            "no_answer_start",
            f"{record.id}: its metadata say no {ANSWER_START}: build it with --source=benchmark, "
            "or read it as kind='pair'",
        ) from error


class Pixels:
    """Media as frames, u8[n, H, W, 3]; a picture is one frame, a video `num_frames` or fewer."""

    def __init__(
        self,
        preprocessing: ImagePreprocessing,
        *,
        num_frames: int = 1,
        fps: float = 1.0,
        random_clip: bool = True,
        flip: float = 0.0,
        color: float = 0.0,
    ):
        """`random_clip`: a clip begins at random, else it is the middle of the video; `flip`,
        `color`: see `data_pipelines.streams.augmentation`."""
        self._preprocessing = preprocessing
        self._num_frames, self._fps, self._random_clip = num_frames, fps, random_clip
        self._flip, self._color = flip, color
        self.shape = (num_frames, preprocessing.size_px, preprocessing.size_px, 3)
        self.dtype = np.dtype(np.uint8)

    def __call__(self, record: Record, number: int, rng: np.random.Generator) -> np.ndarray:
        """Media `number` of the record; raises BadMedia."""
        augment = augmentation.draw(rng, flip=self._flip, color=self._color)
        data = record.media[number]
        if not is_video(data):
            return decode_image(data, self._preprocessing, augment)[None]
        return decode_video(
            data,
            self._preprocessing,
            num_frames=self._num_frames,
            fps=self._fps,
            rng=rng if self._random_clip else None,
            augment=augment,
        )


class CachedFeatures:
    """Media as a frozen encoder's output, computed before; float[F, P, E], all of one shape."""

    def __init__(self, features: Mapping[str, np.ndarray]):
        if not features:
            raise ValueError("the feature cache is empty: compute it before a stream uses it")
        self._features = features
        first = features[next(iter(features))]
        self.shape = first.shape if first.ndim == 3 else (1, *first.shape)
        self.dtype = first.dtype

    def __call__(self, record: Record, number: int, rng: np.random.Generator) -> np.ndarray:
        """Features of media `number`; BadRecord `no_features` or `features_shape`."""
        del rng  # what was computed once cannot be augmented
        name = record.media_ids[number]
        if name not in self._features:
            raise BadRecord("no_features", f"picture {name} is not in the feature cache")
        features = np.asarray(self._features[name])
        if features.size != np.prod(self.shape):
            raise BadRecord(
                "features_shape",
                f"features of {name} are {list(features.shape)}, others {list(self.shape)}",
            )
        return features.reshape(self.shape)


class NoMedia:
    """Of texts, whose rows have no place for any."""

    shape = (1, 1, 1, 3)
    dtype = np.dtype(np.uint8)
