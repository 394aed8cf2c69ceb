"""Files whole or not there, and a full disk that says where."""

import errno
import types

import pytest

from data_pipelines import whole_files
from data_pipelines.building import tfds_writer

FULL = "No space left on device"


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    whole_files.write_json(path, 1)
    full = OSError(errno.ENOSPC, FULL)
    wanted = pytest.raises(OSError, match=r"No space left on device: '.*/a\.json'")
    with wanted, whole_files.open_whole(path):
        raise full
    assert whole_files.read_json(path) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    other = OSError(errno.EIO, "of another file, that is read")
    with pytest.raises(OSError, match=r"read$"), whole_files.open_whole(path):
        raise other


def test_a_full_disk_under_tfds_is_an_error_of_the_disk():
    def fails(file_format):
        raise RuntimeError(f"ResourceExhaustedError: Failed to write: /d/x; {FULL}")

    builder = types.SimpleNamespace(data_dir="/d/pairs", download_and_prepare=fails)
    with pytest.raises(OSError, match="No space left on device: '/d/pairs'"):
        tfds_writer.build(builder)
