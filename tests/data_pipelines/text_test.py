"""Texts alone: from files to records, to rows for a language model."""

import gzip
import json

import numpy as np
import pytest

from data_pipelines import build, inspect
from data_pipelines.building.counts import Counts
from data_pipelines.errors import BadRecord
from data_pipelines.streams.sequences import InterleavedText, text_sequence
from data_pipelines.streams.stream import Stream
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.tokenizer import Tokenizer

TOKENIZER = Tokenizer.byte_level()
TEXTS = ["The first text.", "Ein zweiter, länger als der erste.", "c", "one more"]


def document(text: bytes) -> InterleavedText:
    return InterleavedText(text, np.zeros(0, np.int64))


def sequence(text, num_tokens, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    return text_sequence(document(text), TOKENIZER, rng, num_tokens=num_tokens, **kwargs)


def test_a_short_text_stands_between_bos_and_eos():
    row = sequence(b"ab", 6)
    assert row.tokens.tolist() == [256, 97, 98, 257, 258, 258]
    assert row.token_mask.tolist() == [True] * 4 + [False] * 2
    assert row.loss_mask.tolist() == [False, True, True, True, False, False]
    assert not row.media_index.any()


def test_every_window_of_a_long_text_is_taken_and_the_first_for_evaluation():
    whole = [256, *b"abcdef", 257]
    found = {tuple(sequence(b"abcdef", 5, seed).tokens.tolist()) for seed in range(60)}
    assert found == {tuple(whole[i : i + 5]) for i in range(4)}
    assert sequence(b"abcdef", 5, random_window=False).tokens.tolist() == whole[:5]


@pytest.mark.parametrize(("text", "reason"), [(b"  \n", "no_text"), (b"\xff", "not_utf8")])
def test_what_is_no_text_is_counted(text, reason):
    with pytest.raises(BadRecord) as error:
        sequence(text, 5)
    assert error.value.reason == reason


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A dataset of lines, of which two are broken, and of a plain file; what was printed."""
    folder = tmp_path_factory.mktemp("texts")
    lines = [json.dumps({"body": text}) for text in TEXTS[:3]]
    broken = ["{", json.dumps({"body": 1})]
    (folder / "in").mkdir()
    with gzip.open(folder / "in" / "lines.jsonl.gz", "wt") as file:
        file.write("\n".join([*lines, *broken]))
    (folder / "in" / "plain.txt").write_text(TEXTS[3])
    words = ["build", "--source=text", f"--input={folder / 'in' / '*'}", "--field=body"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [*words, f"--output={folder / 'texts' / '1.0.0'}"])
        build.main()
    return folder / "texts" / "1.0.0"


def test_files_become_records_and_broken_lines_are_counted(built):
    counts = Counts.from_json(json.loads((built / "counts.json").read_text()))
    assert counts.kept == 4
    assert dict(counts.dropped) == {"bad_json": 2}


@pytest.mark.parametrize("pairs_per_row", [1, 2])
def test_rows_hold_every_text_once_and_no_media(built, pairs_per_row):
    settings = {"num_tokens": 80, "batch_size": 2, "pairs_per_row": pairs_per_row}
    config = StreamConfig("texts", str(built), "text", **settings)
    read = []
    for batch in Stream(config.for_evaluation(), TOKENIZER):
        assert batch.media.shape == (2, 0, 1, 1, 1, 3)
        assert (batch.segments is not None) == (pairs_per_row > 1)
        for tokens, mask in zip(batch.tokens, batch.token_mask, strict=True):
            read += [t for t in bytes_of(tokens[mask]).split("\n") if t]
    assert sorted(read) == sorted(TEXTS)


def bytes_of(tokens) -> str:
    """The texts of a row, a line each."""
    values = [10 if token == 257 else token for token in tokens.tolist() if token != 256]
    return bytes(values).decode()


def test_inspect_tells_the_kind_from_the_records(built, tmp_path, monkeypatch):
    words = ["inspect", f"--data={built}", f"--out={tmp_path}", "--num=4", "--tokenizer=bytes"]
    monkeypatch.setattr("sys.argv", words)
    inspect.main()
    shown = (tmp_path / "index.html").read_text()
    assert "<dt>kind</dt><dd>text</dd>" in shown
    assert shown.count("<section>") == 4
    assert "0 of 0 media" in shown
    assert "<img" not in shown
