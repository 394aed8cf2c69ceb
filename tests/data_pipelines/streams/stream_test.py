"""Order, restart, processes and bad records of streams over real TFDS files."""

import dataclasses
import glob
import itertools
import json

import jax
import numpy as np
import pytest

from data_pipelines.errors import TooManyBadRecords
from data_pipelines.streams import stream as stream_module
from data_pipelines.streams.stream import Stream
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.tokenizer import Tokenizer
from tests.data_pipelines.batches import assert_same, take
from tests.data_pipelines.tiny_records import pairs, picture, record

TOKENIZER = Tokenizer.byte_level()
PP = ImagePreprocessing(size_px=8)


def config(data_dir, **changes) -> StreamConfig:
    base = StreamConfig(
        name="tiny", data_dir=data_dir, kind="pair", batch_size=4, num_tokens=12, seed=7
    )
    return dataclasses.replace(base, **changes)


def stream(data_dir, *, state=None, process=(0, 1), **changes) -> Stream:
    return Stream(
        config(data_dir, **changes),
        TOKENIZER,
        preprocessing=PP,
        process_index=process[0],
        process_count=process[1],
        state=state,
    )


def captions(batch) -> list[str]:
    """Text of each row, "" for an empty one, checked against the picture beside it."""
    texts = []
    for tokens, mask, media, media_mask in zip(
        batch.tokens, batch.token_mask, batch.media, batch.media_mask, strict=True
    ):
        text = TOKENIZER.decode(tokens[mask].tolist()).strip()
        texts.append(text)
        assert media_mask.all() == bool(text)
        if text:
            assert (media[0, 0] == (int(text) % 256, int(text) // 256, 77)).all()
    return texts


def joined(batches) -> list[str]:
    return list(itertools.chain.from_iterable(map(captions, batches)))


def test_every_example_once_an_epoch_in_an_order_that_only_the_seed_decides(build_dataset):
    data_dir = build_dataset(pairs(20), num_shards=3)
    batches = take(stream(data_dir), 10)
    first, second = joined(batches[:5]), joined(batches[5:])
    assert sorted(first, key=int) == sorted(second, key=int) == [str(i) for i in range(20)]
    assert first != second
    assert first != sorted(first, key=int)
    again = joined(take(stream(data_dir, num_workers=5), 5))
    assert again == first
    other = joined(take(stream(data_dir, seed=8), 5))
    assert sorted(other) == sorted(first)
    assert other != first
    wide = joined(take(stream(data_dir, batch_size=10), 2))
    assert wide == first


@pytest.mark.parametrize("stop", [0, 1, 7])
def test_resumed_equals_uninterrupted_bit_for_bit(build_dataset, stop):
    pages = [record(str(i), "ab" * i + "cd" * 9, [2 * i], [picture(i)]) for i in range(11)]
    data_dir = build_dataset(pages)
    changes = {"kind": "page", "max_media": 2}
    whole = stream(data_dir, **changes)
    batches = take(whole, 12)
    before = stream(data_dir, **changes)
    take(before, stop)
    state = json.loads(json.dumps(before.state()))
    after = stream(data_dir, state=state, **changes)
    assert_same(take(after, 12 - stop), batches[stop:])
    assert after.state() == whole.state()
    assert state["next_index"] == 4 * stop


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_reads_the_same_batches(build_dataset, processes):
    data_dir = build_dataset([*pairs(13), record("bad", "13", media=[b"no picture"])])
    changes = {"batch_size": 6, "max_skipped_share": 1.0}
    alone = take(stream(data_dir, **changes), 7)
    parts = [stream(data_dir, process=(p, processes), **changes) for p in range(processes)]
    together = [
        jax.tree.map(lambda *rows: np.concatenate(rows), *step)
        for step in zip(*(take(part, 7) for part in parts), strict=True)
    ]
    assert_same(together, alone)
    assert sum(part.skipped.get("not_an_image", 0) for part in parts) == 3  # 42 rows, 14 records


def test_two_processes_go_on_as_three(build_dataset):
    data_dir = build_dataset(pairs(13))
    alone = take(stream(data_dir, batch_size=6), 6)
    two = [stream(data_dir, batch_size=6, process=(p, 2)) for p in range(2)]
    for part in two:
        take(part, 2)
    assert two[0].state()["next_index"] == two[1].state()["next_index"] == 12
    state = two[0].state()
    three = [stream(data_dir, batch_size=6, process=(p, 3), state=state) for p in range(3)]
    together = [joined(step) for step in zip(*(take(t, 4) for t in three), strict=True)]
    assert together == [captions(batch) for batch in alone[2:]]


def test_evaluation_reads_each_record_once_in_order_and_fills_the_last_batch(build_dataset):
    data_dir = build_dataset(pairs(6))
    once = Stream(config(data_dir).for_evaluation(), TOKENIZER, preprocessing=PP)
    batches = list(once)
    assert [captions(b) for b in batches] == [["0", "1", "2", "3"], ["4", "5", "", ""]]
    last = batches[-1]
    assert not last.token_mask[2:].any()
    assert not last.loss_mask[2:].any()
    assert not last.media_mask[2:].any()
    assert once.examples == 6
    assert once.skipped == {}
    assert once.state()["next_index"] == 6
    finished = Stream(
        config(data_dir).for_evaluation(), TOKENIZER, preprocessing=PP, state=once.state()
    )
    assert list(finished) == []


def test_split_notation(build_dataset):
    data_dir = build_dataset(pairs(10), num_shards=3)
    part = stream(data_dir, split="train[20%:50%]", shuffle=False, repeat=False)
    assert joined(part) == ["2", "3", "4", ""]


def test_bad_records_are_counted_by_reason_and_their_neighbours_kept(build_dataset):
    good = pairs(40)
    bad = [
        record("a", "x", media=[picture(1)[:40]]),
        record("b", "x", media=[b"<html>"]),
        record("c", "x", media=[b""]),
        record("d", " ", media=[picture(1)]),
        record("e", "x", [], []),
        record("f", "x", [0, 0], [picture(1)]),
    ]
    data_dir = build_dataset(good[:20] + bad + good[20:])
    once = stream(data_dir, shuffle=False, repeat=False, max_skipped_share=0.2)
    texts = joined(once)
    assert [text for text in texts if text] == [str(i) for i in range(40)]
    assert once.examples == 40
    reasons = ["damaged", "empty", "media_mismatch", "no_text", "not_a_pair", "not_an_image"]
    assert once.skipped == dict.fromkeys(reasons, 1)


def test_counts_go_on_after_a_restart(build_dataset):
    data_dir = build_dataset([*pairs(7), record("bad", "7", media=[b""])])
    whole, first = (stream(data_dir, max_skipped_share=1.0) for _ in range(2))
    take(whole, 9)
    take(first, 5)
    second = stream(data_dir, state=first.state(), max_skipped_share=1.0)
    take(second, 4)
    assert (second.examples, second.skipped) == (whole.examples, whole.skipped)
    assert whole.examples + sum(whole.skipped.values()) == 36
    assert whole.skipped["empty"] in (4, 5)


def test_too_many_bad_records_stop_the_run_and_say_why(build_dataset):
    records = pairs(6) + [record(f"bad{i}", "x", media=[b"?"]) for i in range(4)]
    data_dir = build_dataset(records)
    endless = stream(data_dir, max_skipped_share=0.3)
    with pytest.raises(TooManyBadRecords, match=r"tiny: 4\d of 10\d records .*'not_an_image': 4\d"):
        take(endless, 100)
    assert sum(endless.skipped.values()) > 0.3 * 100
    take(stream(data_dir, max_skipped_share=0.5), 100)


def test_nothing_but_bad_records_stops_at_once_or_at_the_end(build_dataset):
    data_dir = build_dataset([record(str(i), "x", media=[b"?"]) for i in range(5)])
    with pytest.raises(TooManyBadRecords):
        take(stream(data_dir), 1000)
    with pytest.raises(TooManyBadRecords, match="5 of 5"):
        list(stream(data_dir, repeat=False))


def test_truncated_shard_keeps_the_records_before_the_cut_and_the_other_shards(build_dataset):
    data_dir = build_dataset(pairs(12), num_shards=3)
    path = sorted(glob.glob(f"{data_dir}/*.tfrecord*"))[1]
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(data[: len(data) // 2])
    once = stream(data_dir, shuffle=False, repeat=False, max_skipped_share=0.5)
    kept = [int(text) for text in joined(once) if text]
    lost = once.skipped["missing_in_shard"]
    assert kept == [i for i in range(12) if not 8 - lost <= i < 8]
    assert 1 <= lost <= 3
    assert "whole records, 4 were expected" in once.rows.records.damage[0]


def test_pages_keep_the_first_images_of_the_window(build_dataset):
    media = [picture(i) for i in range(3)]
    data_dir = build_dataset([record("a", "abcd", [1, 2, 3], media)])
    batch = next(
        stream(data_dir, kind="page", max_media=2, num_tokens=16, p_next=0.0, batch_size=1)
    )
    assert batch.media.shape == (1, 2, 1, 8, 8, 3)
    assert batch.media[0, :, 0, 0, 0, 0].tolist() == [0, 1]
    assert batch.media_mask.tolist() == [[[True], [True]]]
    assert TOKENIZER.decode(batch.tokens[0][batch.token_mask[0]].tolist()) == "abcd"
    assert batch.media_index.max() == 2


@pytest.mark.parametrize("frames", [None, 2])
def test_cached_features_take_the_place_of_pixels(build_dataset, frames):
    records = pairs(6)
    shape = (5, 3) if frames is None else (frames, 5, 3)
    features = {r["media_ids"][0]: np.full(shape, float(r["id"]), np.float32) for r in records[:5]}
    once = Stream(
        config(build_dataset(records), max_skipped_share=1.0).for_evaluation(),
        TOKENIZER,
        features=features,
    )
    batches = list(once)
    assert batches[0].media.shape == (4, 1, frames or 1, 5, 3)
    assert batches[0].media.dtype == np.float32
    assert batches[0].media[:, 0, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert once.skipped == {"no_features": 1}
    assert batches[1].media_mask[:, 0].all(axis=1).tolist() == [True, False, False, False]


def test_mistakes_are_said_in_one_line(build_dataset, tmp_path):
    data_dir = build_dataset(pairs(5))
    with pytest.raises(ValueError, match=r"dataset_info\.json"):
        stream(str(tmp_path))
    with pytest.raises(ValueError, match=r"no split 'test'.*\['train'\]"):
        stream(data_dir, split="test")
    with pytest.raises(ValueError, match="does not divide among 3"):
        stream(data_dir, process=(0, 3))
    with pytest.raises(ValueError, match="5 examples for 6 processes"):
        stream(data_dir, process=(0, 6), batch_size=6)
    with pytest.raises(ValueError, match=r"flip=0\.5 .* features were computed before"):
        Stream(config(data_dir, flip=0.5), TOKENIZER, features={"a": np.zeros((1, 1))})
    with pytest.raises(ValueError, match="fps=0"):
        config(data_dir, fps=0.0)
    with pytest.raises(ValueError, match="is empty: take more of its records, train of 5"):
        stream(data_dir, split="train[:0]")
    state = stream(data_dir).state()
    with pytest.raises(ValueError, match="num_records=5"):
        stream(data_dir, split="train[:4]", state=state)
    with pytest.raises(ValueError, match="seed=7"):
        stream(data_dir, seed=8, state=state)
    with pytest.raises(ValueError, match="template"):
        stream(data_dir, template="no place")


def test_what_is_open_is_closed_when_python_ends(build_dataset):
    left_open = stream(build_dataset(pairs(6)))
    next(left_open)
    stream_module._close_all()  # as atexit does: a thread that reads would abort the process
    with pytest.raises(StopIteration):
        next(left_open)
