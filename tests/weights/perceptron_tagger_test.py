"""A tagger's weights from a pickle that may hold nothing else."""

import os
import pickle

import pytest

from flamingo_jax.weights import perceptron_tagger
from flamingo_jax.weights.errors import BadWeightsFile

GOOD = ({"i word dog": {"NN": 1.5, "VB": -0.5}}, {"the": "DT"}, {"NN", "VB", "DT"})


def write(path, value) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))  # as Python 2 wrote the published one


def test_weights_as_they_were_written(tmp_path):
    write(tmp_path / "tagger.pickle", GOOD)
    assert perceptron_tagger.load(tmp_path / "tagger.pickle") == GOOD


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ((*GOOD[:2], Evil()), "refused to build posix.system"),
        (GOOD[:2], "want two dicts and the tags of a tagger"),
        (
            (*GOOD[:2], {("NN", "VB")}),
            "damaged or cut short inside its pickle .a tag that is no text",
        ),
        ([1], "want two dicts and the tags of a tagger"),
    ],
)
def test_anything_else_is_refused(tmp_path, value, says):
    path = tmp_path / "tagger.pickle"
    write(path, value)
    with pytest.raises(BadWeightsFile, match=f"{path}: {says}"):
        perceptron_tagger.load(path)


def test_a_missing_or_torn_file_is_named(tmp_path):
    path = tmp_path / "tagger.pickle"
    with pytest.raises(BadWeightsFile, match="cannot be read"):
        perceptron_tagger.load(path)
    write(path, GOOD)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadWeightsFile, match=r"tagger\.pickle: .*cut short"):
        perceptron_tagger.load(path)
