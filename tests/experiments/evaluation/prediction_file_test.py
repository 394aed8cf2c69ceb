"""Predictions on disk: what is not whole is said, or dropped where a killed command left it."""

import pytest

from experiments.cli import UserError
from experiments.evaluation.prediction_file import PredictionFile

GOOD = '{"seed": 0, "id": "q", "text": "a cat"}\n'


@pytest.mark.parametrize(
    "line", ["x", "[]", "{}", '{"seed": 0, "id": "q"}', '{"id": [], "seed": 0}']
)
def test_a_line_that_is_no_prediction_is_named(tmp_path, line):
    path = tmp_path / "pets_4.jsonl"
    path.write_text(f"{GOOD}{line}\n")
    with pytest.raises(UserError, match=r"pets_4\.jsonl:2 is damaged: delete the file"):
        PredictionFile(path)


def test_a_full_disk_is_told_with_the_file(tmp_path):
    path = tmp_path / "pets_4.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*pets_4\.jsonl"):
        PredictionFile(path).add([{"seed": 0, "id": "q", "text": "a cat"}])


def test_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "pets_4.jsonl"
    path.write_text(GOOD + GOOD[:20])
    assert list(PredictionFile(path).lines) == [(0, "q")]
    assert path.read_text() == GOOD
