"""The newest version of a dataset, by its numbers."""

import pathlib

import pytest

from data_pipelines.commands import dataset_folder
from data_pipelines.reading.versions import newest_versions


def write(root: pathlib.Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "dataset_info.json").write_text("{}")


def test_versions_are_compared_by_number(tmp_path):
    write(tmp_path, "a/1.9.0", "a/1.10.0", "a/1.2.30", "b/sub/2.0.0", "b/sub/10.0.0", "c", "d")
    names = ["a/1.10.0", "b/sub/10.0.0", "c", "d"]
    assert newest_versions(tmp_path) == [tmp_path / name for name in names]
    assert newest_versions(tmp_path / "a") == [tmp_path / "a/1.10.0"]
    assert newest_versions(tmp_path / "a/1.9.0") == [tmp_path / "a/1.9.0"]
    assert newest_versions(tmp_path / "none") == []


def test_the_commands_take_the_newest(tmp_path):
    write(tmp_path, "a/1.9.0", "a/1.10.0")
    assert dataset_folder(str(tmp_path)) == tmp_path / "a/1.10.0"
    write(tmp_path, "b")
    with pytest.raises(ValueError, match=r"holds 2 datasets: give one of \S+/a/1\.10\.0, \S+/b$"):
        dataset_folder(str(tmp_path))
