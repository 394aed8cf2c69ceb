"""Pairs that share a row: nothing lost, nothing mixed, and each scored as in a row of its own."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.streams.packing import fit, pack
from data_pipelines.streams.stream import Stream
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.core import params
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.train.step import batch_loss
from tests import tiny_flamingo as tiny
from tests.data_pipelines.tiny_records import pairs, record

TOKENIZER = Tokenizer.byte_level()
PP = ImagePreprocessing(size_px=8)


def stream(data_dir, pairs_per_row=3, **changes) -> Stream:
    fields = {"batch_size": 2, "num_tokens": 24, "seed": 7, "max_skipped_share": 1.0} | changes
    state = fields.pop("state", None)
    config = StreamConfig("tiny", data_dir, "pair", pairs_per_row=pairs_per_row, **fields)
    return Stream(config, TOKENIZER, preprocessing=PP, state=state)


def texts(batch) -> list[str]:
    """Of each slot of each row, "" for an empty one, checked against the picture beside it."""
    found = []
    for row in range(len(batch.tokens)):
        for slot in range(batch.media.shape[1]):
            there = batch.segments[row] == slot + 1
            text = TOKENIZER.decode(batch.tokens[row][there].tolist()).strip()
            assert batch.media_mask[row, slot].all() == bool(text)
            assert set(batch.media_index[row][there]) <= {0, slot + 1}
            if text:
                color = int(text) % 256, int(text) // 256, 77
                assert (batch.media[row, slot, 0] == color).all()
            found.append(text)
    return found


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(24, 64))
def test_what_fits_is_kept_and_the_longest_are_cut_first(lengths, room):
    fitted = fit(lengths, room)
    assert sum(fitted) == min(sum(lengths), room)
    assert all(a <= b for a, b in zip(fitted, lengths, strict=True))
    limit = max(fitted)
    assert all(a == b or a >= limit - 1 for a, b in zip(fitted, lengths, strict=True))


def test_the_examples_are_those_of_rows_of_their_own_in_their_order(build_dataset):
    data_dir = build_dataset([*pairs(13), record("bad", "13", media=[b"no picture"])])
    alone = stream(data_dir, 1, batch_size=6)
    shared = stream(data_dir)
    for _ in range(5):
        a, b = next(alone), next(shared)
        own = [TOKENIZER.decode(t[m].tolist()).strip() for t, m in zip(*a[:2], strict=True)]
        assert texts(b) == own
    assert shared.state() == alone.state()
    assert shared.skipped == {"not_an_image": 2}


def test_a_restart_goes_on_where_it_was(build_dataset):
    data_dir = build_dataset(pairs(13))
    whole = stream(data_dir)
    want = [next(whole) for _ in range(6)]
    first = stream(data_dir)
    for _ in range(2):
        next(first)
    rest = stream(data_dir, state=first.state())
    for batch in want[2:]:
        jax.tree.map(np.testing.assert_array_equal, next(rest), batch)


def test_evaluation_fills_the_last_row_with_nothing(build_dataset):
    data_dir = build_dataset(pairs(7))
    found = [text for b in stream(data_dir, shuffle=False, repeat=False) for text in texts(b)]
    assert found == [*map(str, range(7)), *[""] * 5]


@pytest.mark.parametrize(
    "changes",
    [
        *({"lm": {"positions": p}} for p in ("rope", "alibi", "relative")),
        {"lm": {"positions": "learned"}, "cross_attention": {"attend": "all_previous"}},
    ],
)
def test_every_pair_is_scored_as_in_a_row_of_its_own(build_dataset, changes):
    data_dir = build_dataset(pairs(12))
    alone = next(stream(data_dir, 1, batch_size=6))
    shared = next(stream(data_dir))
    shape = tiny.NUM_FEATURES, tiny.VISION_WIDTH
    features = np.random.default_rng(0).normal(size=(2, 3, 1, *shape)).astype(np.float32)
    alone = alone._replace(media=features.reshape(6, 1, 1, *shape), tokens=alone.tokens % 40)
    shared = shared._replace(media=features, tokens=shared.tokens % 40)
    config = tiny.changed(**changes)
    graph, _, _ = tiny.abstract(config)
    trained, frozen = params.split(tiny.random_params(config))
    loss = jax.jit(lambda batch: batch_loss(graph, trained, frozen, batch))
    assert shared.num_targets == alone.num_targets
    np.testing.assert_allclose(loss(shared), loss(alone), rtol=1e-5)
    mixed = shared._replace(segments=(shared.segments > 0).astype(np.int32))
    assert abs(loss(mixed) - loss(alone)) > 1e-4  # a mask that lets pairs see each other shows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_tokens": 8}, "num_tokens=8 for pairs_per_row=3: use 4 tokens a pair"),
        ({"pairs_per_row": 0}, "pairs_per_row=0: use 1 or more"),
    ],
)
def test_what_cannot_be_is_one_line(changes, message):
    with pytest.raises(ValueError, match=message):
        stream("nowhere", **changes)


def test_pages_do_not_share_rows():
    with pytest.raises(ValueError, match="pairs_per_row=2 of kind='page': use 1"):
        StreamConfig("tiny", "nowhere", "page", batch_size=2, pairs_per_row=2)


def test_a_row_without_a_usable_pair_is_empty():
    row = pack([None, None], 8, TOKENIZER.pad_id)
    assert not row.token_mask.any()
    assert not row.segments.any()
    assert not row.loss_mask.any()
