"""The one record schema of every dataset on disk: pages, image-text pairs and, later, video.

Paper: section 2.4 and the appendix on data (M3W pages, ALIGN and LTIP pairs). A record is a
document and the media that stand in it; a pair is a document with one picture before its caption.
Media are kept compressed, so that resolution and padding stay the reader's choice.
"""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from data_pipelines.errors import BadRecord

ANSWER_START = "answer_start"  # in the metadata of a question: the byte where its answer begins


def media_id(data: bytes) -> str:
    """Stable name of a picture: the first 16 hex digits of its bytes' SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Document:
    """Text with media at byte offsets; the typed form of one record."""

    id: str
    text: str
    media_positions: tuple[int, ...]  # byte offsets into the UTF-8 text, non-decreasing
    media: tuple[bytes, ...]  # compressed files: PNG, JPEG, WebP or GIF
    metadata: Mapping[str, Any]  # JSON values: source, licence, artist, concept, references, ...

    @property
    def media_ids(self) -> tuple[str, ...]:
        return tuple(media_id(data) for data in self.media)


def features() -> tfds.features.FeaturesDict:
    """The schema as TFDS features.

    `id`, `text` and `metadata` are string scalars (UTF-8, the last one JSON), `media_positions` is
    int32[n], `media` and `media_ids` are string[n]. `n` may be 0 in a bad record.
    """
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "text": tfds.features.Text(),
            "media_positions": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "media": tfds.features.Tensor(shape=(None,), dtype=tf.string),
            "media_ids": tfds.features.Tensor(shape=(None,), dtype=tf.string),
            "metadata": tfds.features.Text(),
        }
    )


def validate(document: Document, *, with_media: bool = True) -> Document:
    """Returns `document` if the schema's promises hold, else raises BadRecord.

    Without `with_media` it may be text alone, for a language model to learn from.

    Reasons: `no_media`, `no_text`, `positions_mismatch` (as many positions as media),
    `positions_unsorted`, `position_outside` (of the text), `position_inside_character`,
    `empty_media`, `no_licence`, `not_utf8` (a lone surrogate, as JSON may hold). Pixels are not
    decoded here; the reader does that.
    """
    positions = document.media_positions
    name = f"record {document.id!r}"
    try:
        text = document.text.encode()
        (document.id + json.dumps(document.metadata, ensure_ascii=False)).encode()
    except UnicodeEncodeError as error:
        raise BadRecord("not_utf8", f"{name}: {error}: leave the character out") from error
    if with_media and not document.media:
        raise BadRecord("no_media", f"{name} has no image: give it one or leave it out")
    if not document.text.strip():
        raise BadRecord("no_text", f"{name} has no text: give it a caption or leave it out")
    if len(positions) != len(document.media):
        raise BadRecord(
            "positions_mismatch",
            f"{name} has {len(document.media)} media and {len(positions)} positions: want as many",
        )
    if list(positions) != sorted(positions):
        raise BadRecord("positions_unsorted", f"{name}: sort media by position, got {positions}")
    if positions and (positions[0] < 0 or positions[-1] > len(text)):
        raise BadRecord(
            "position_outside", f"{name}: positions {positions} leave the text's 0 to {len(text)}"
        )
    for position in positions:
        if position < len(text) and text[position] & 0xC0 == 0x80:  # a UTF-8 continuation byte
            raise BadRecord(
                "position_inside_character",
                f"{name}: position {position} cuts a character: use byte offsets between two",
            )
    if not all(document.media):
        raise BadRecord("empty_media", f"{name} has a picture of 0 bytes: leave the picture out")
    if not document.metadata.get("licence"):
        raise BadRecord("no_licence", f"{name}: metadata names no licence: add the source's")
    return document


def without_media(document: Document, media_ids: Collection[str]) -> Document:
    """The document without some of its media, and without what `metadata["media"]` says of them.

    `metadata["media"]`, where a source writes it, has one JSON object for each medium.
    """
    kept = [i for i, name in enumerate(document.media_ids) if name not in media_ids]
    metadata = dict(document.metadata)
    if "media" in metadata:
        metadata["media"] = [metadata["media"][i] for i in kept]
    return dataclasses.replace(
        document,
        media_positions=tuple(document.media_positions[i] for i in kept),
        media=tuple(document.media[i] for i in kept),
        metadata=metadata,
    )


def to_example(document: Document) -> dict[str, Any]:
    """The dict that TFDS encodes; it does not validate, so that tests can write bad records."""
    return {
        "id": document.id,
        "text": document.text,
        "media_positions": np.asarray(document.media_positions, np.int32),
        "media": np.asarray(document.media, object),
        "media_ids": np.asarray(document.media_ids, object),
        "metadata": json.dumps(document.metadata, ensure_ascii=False, sort_keys=True),
    }


def from_example(example: Mapping[str, Any]) -> Document:
    """The document of one example read with `tfds.as_numpy`."""
    return Document(
        id=example["id"].decode(),
        text=example["text"].decode(),
        media_positions=tuple(int(position) for position in example["media_positions"]),
        media=tuple(example["media"]),
        metadata=json.loads(example["metadata"]),
    )


def serialize(document: Document) -> bytes:
    """The document as the serialized `tf.train.Example` of a dataset's shards.

    The same bytes for the same document: TFDS's own serializer leaves the order of the fields to
    protobuf, which changes it from process to process.
    """
    example = tf.train.Example()
    fields = example.features.feature
    for name, value in to_example(document).items():
        if name == "media_positions":
            fields[name].int64_list.value.extend(int(position) for position in value)
        else:
            values = [value] if isinstance(value, str) else value
            fields[name].bytes_list.value.extend(
                v.encode() if isinstance(v, str) else v for v in values
            )
    return example.SerializeToString(deterministic=True)


def deserialize(data: bytes) -> Document:
    """The inverse of `serialize`, by protobuf alone: 20 us where TFDS's graph takes 500.

    Raises BadRecord `bad_record` for what it did not write.
    """
    try:
        fields = tf.train.Example.FromString(data).features.feature
        return Document(
            id=fields["id"].bytes_list.value[0].decode(),
            text=fields["text"].bytes_list.value[0].decode(),
            media_positions=tuple(fields["media_positions"].int64_list.value),
            media=tuple(fields["media"].bytes_list.value),
            metadata=json.loads(fields["metadata"].bytes_list.value[0]),
        )
    except Exception as error:  # protobuf, a missing field, not UTF-8, no JSON
        raise BadRecord(
            "bad_record", f"{len(data)} bytes do not follow the record schema: {error!r}"
        ) from error
