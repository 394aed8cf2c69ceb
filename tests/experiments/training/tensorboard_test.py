"""TensorBoard events: what is written is read back; without TensorFlow, one clear line."""

import sys

import numpy as np
import pytest

from experiments.reporting.report_data import SamplePicture
from experiments.training.tensorboard import TensorBoardWriter


def test_rows_and_pictures_are_read_back(tmp_path):
    tf = pytest.importorskip("tensorflow")
    writer = TensorBoardWriter(tmp_path)
    writer.write({"step": 1, "loss": np.float32(2.5), "mfu": None, "lr": float("nan")})
    writer.write({"step": 2, "loss": 2.0})
    writer.write_samples(2, [SamplePicture(np.zeros((8, 8, 3), np.uint8), "a cat", ("a dog",))])
    writer.close()
    scalars, pictures = [], []
    for file in tmp_path.iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                array = tf.make_ndarray(value.tensor)
                if value.tag == "samples":
                    pictures.append(tf.io.decode_png(array[2]).numpy())
                else:
                    scalars.append((event.step, value.tag, float(array)))
    assert scalars == [(1, "loss", 2.5), (2, "loss", 2.0)]
    (picture,) = pictures
    assert picture.shape[-1] == 3
    assert picture.min() < 50  # the black sample picture is in it


def test_missing_tensorflow_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ModuleNotFoundError, match="TensorBoard events need TensorFlow") as error:
        TensorBoardWriter(tmp_path)
    assert "\n" not in str(error.value)
