"""The record schema: what it refuses, and that TFDS gives back what was written."""

import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from data_pipelines.building.tfds_writer import build
from data_pipelines.errors import BadRecord
from data_pipelines.records import (
    Document,
    deserialize,
    features,
    from_example,
    serialize,
    to_example,
    validate,
    without_media,
)

GOOD = Document(
    id="page/1",
    text="Café: crème",  # é is bytes 3 and 4, so ":" is byte 5
    media_positions=(0, 5, 13),
    media=(b"\x00\xff picture", b"b", b"\x00\xff picture"),
    metadata={"source": "test", "licence": "MIT", "references": ["ein Café", "☕"]},
)


def test_good_documents_pass():
    assert validate(GOOD) is GOOD
    assert len(GOOD.text.encode()) == 13


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"media": (), "media_positions": ()}, "no_media"),
        ({"text": " \n"}, "no_text"),
        ({"media_positions": (0, 5)}, "positions_mismatch"),
        ({"media_positions": (5, 0, 13)}, "positions_unsorted"),
        ({"media_positions": (0, 5, 14)}, "position_outside"),
        ({"media_positions": (-1, 5, 13)}, "position_outside"),
        ({"media_positions": (0, 4, 13)}, "position_inside_character"),
        ({"media": (b"a", b"", b"c")}, "empty_media"),
        ({"metadata": {"source": "test"}}, "no_licence"),
    ],
)
def test_bad_documents_are_refused_by_reason(changes, reason):
    with pytest.raises(BadRecord, match="'page/1'") as caught:
        validate(dataclasses.replace(GOOD, **changes))
    assert caught.value.reason == reason


def test_media_ids_are_the_sha256_beginnings():
    assert GOOD.media_ids[1] == hashlib.sha256(b"b").hexdigest()[:16]
    assert GOOD.media_ids[0] == GOOD.media_ids[2] != GOOD.media_ids[1]


class RoundTrip(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Two documents, one of them without media."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=features())

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for document in (GOOD, NO_MEDIA):
            yield document.id, to_example(document)


NO_MEDIA = dataclasses.replace(GOOD, id="page/2", media=(), media_positions=())


def test_tfds_on_disk_gives_back_what_was_written(tmp_path):
    build(RoundTrip(data_dir=str(tmp_path)))
    read = tfds.builder_from_directory(str(tmp_path / "round_trip" / "1.0.0"))
    examples = list(read.as_dataset(split="train").as_numpy_iterator())
    documents = {document.id: document for document in map(from_example, examples)}
    assert documents == {"page/1": GOOD, "page/2": NO_MEDIA}
    assert [name.decode() for name in examples[0]["media_ids"]] in (list(GOOD.media_ids), [])


def test_records_are_plain_tf_examples(tmp_path):
    """A reader may parse them without TFDS: one bytes or int64 list a field, in order."""
    builder = RoundTrip(data_dir=str(tmp_path))
    build(builder)
    (path,) = builder.info.splits["train"].filepaths
    records = [
        tf.train.Example.FromString(data.numpy()).features.feature
        for data in tf.data.TFRecordDataset(str(path))
    ]
    (record,) = [r for r in records if r["id"].bytes_list.value[0] == b"page/1"]
    assert list(record["media_positions"].int64_list.value) == [0, 5, 13]
    assert tuple(record["media"].bytes_list.value) == GOOD.media
    assert record["text"].bytes_list.value[0] == "Café: crème".encode()
    assert json.loads(record["metadata"].bytes_list.value[0]) == GOOD.metadata


def test_serialized_records_are_what_tfds_reads_and_always_the_same_bytes():
    data = serialize(GOOD)
    example = features().deserialize_example(data)
    assert from_example({name: value.numpy() for name, value in example.items()}) == GOOD
    assert deserialize(data) == GOOD
    for damaged in (b"", data[:-9], b"no record"):
        with pytest.raises(BadRecord, match="do not follow the record schema"):
            deserialize(damaged)
    script = "from tests.data_pipelines import records_test as t; print(t.serialize(t.GOOD))"
    for seed in "01":
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=pathlib.Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == str(data)


def test_media_taken_out_of_a_record_leave_the_others_where_they_are():
    about = {"media": [{"url": "a"}, {"url": "b"}, {"url": "c"}], "licence": "x"}
    document = dataclasses.replace(GOOD, metadata=about)
    kept = without_media(document, {GOOD.media_ids[0]})  # the first and the last are equal
    assert (kept.media, kept.media_positions) == ((b"b",), (5,))
    assert kept.metadata["media"] == [{"url": "b"}]
    assert without_media(document, set()) == document
