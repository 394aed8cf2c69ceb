"""Records of different input files have different ids, wherever those files lie."""

import dataclasses

import pytest

from data_pipelines.sources.coco import Coco
from data_pipelines.sources.input_names import shared_folder
from data_pipelines.sources.mmc4 import Mmc4
from data_pipelines.sources.obelics import Obelics
from data_pipelines.sources.webdataset import WebDataset
from tests.data_pipelines.broken_inputs_test import SOURCES
from tests.data_pipelines.sources.converting import converted

KINDS = {
    "jsonl": (Mmc4(), "mmc4"),
    "tar": (WebDataset(), "webdataset"),
    "parquet": (Obelics(), "obelics"),
    "json": (Coco("media"), "coco"),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_files_of_one_name_in_several_folders(tmp_path, kind, monkeypatch):
    """As they are found from the folder above them, and from the working directory."""
    source, prefix = KINDS[kind]
    if kind == "json":
        source = dataclasses.replace(source, media=str(tmp_path / "p0"))
    names = [f"p{i}/00000.{kind}" for i in range(2)] + [f"p1/deep/00000.{kind}"]
    for name in names:
        (tmp_path / name).parent.mkdir()
        SOURCES[kind][0](tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for paths in ([f"{tmp_path}/{name}" for name in names], names):
        bound = source.bind(paths, ())
        documents = [converted(bound, [path])[0] for path in paths]  # each file a task of its own
        ids = [document.id for some in documents for document in some]
        assert len(set(ids)) == len(ids) == 30
        assert [some[0].id.rpartition("/")[0] for some in documents] == [
            f"{prefix}/{name}/00000" for name in ("p0", "p1", "p1/deep")
        ]
        one = source.bind(paths[1:2], ())
        assert {d.id for d in converted(one, paths[1:2])[0]} == {
            f"{prefix}/00000/{id.rpartition('/')[2]}" for id in ids[10:20]
        }


def test_files_that_differ_in_their_extensions_only():
    paths = ["a/x.jsonl", "a/x.jsonl.gz", "a/y.jsonl"]
    source = Mmc4().bind(paths, ())
    assert [source.input_name(path) for path in paths] == ["x.jsonl", "x.jsonl.gz", "y"]


def test_the_shared_folder():
    assert shared_folder(["gs://b/p0/x.tar", "gs://b/p1/x.tar"]) == "gs://b/"
    assert shared_folder(["/a/bc/x", "/a/bd/x"]) == "/a/"
    assert shared_folder(["x", "y"]) == ""
