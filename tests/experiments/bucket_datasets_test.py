"""A recipe whose datasets lie in a bucket: found, checked and read as those of a disk."""

import pathlib

import pytest

from data_pipelines import index
from data_pipelines.demo import synthetic
from data_pipelines.reading import bucket_files
from experiments.configs import flamingo
from experiments.frozen import feature_cache
from experiments.training import datasets
from tests import buckets


def recipe(root) -> object:
    """Of `micro`, with its datasets in that folder or bucket."""
    config = flamingo.get_config("micro")
    config.data.source = ""
    for name in ("pages", "pairs"):
        config.data.train[name].path = f"{root}/synthetic_{name}"
    config.data.validation.pairs.path = f"{root}/synthetic_pairs"
    config.data.heldout.path = f"{root}/synthetic_pairs"
    return config


def test_a_recipe_reads_them_as_those_of_a_disk(tmp_path):
    synthetic.prepare(tmp_path)
    here = recipe(tmp_path)
    for name in ("pages", "pairs"):
        index.write_indexes(datasets.folder(here, f"{tmp_path}/synthetic_{name}"))
    with buckets.serve("bucket") as bucket:
        for file in filter(pathlib.Path.is_file, tmp_path.rglob("*")):
            bucket_files.write(f"{bucket}/{file.relative_to(tmp_path)}", file.read_bytes())
        there = recipe(bucket)
        for of in (datasets.stream_configs, lambda c: datasets.validation_configs(c).values()):
            for a, b in zip(of(here), of(there), strict=True):
                assert b.data_dir == a.data_dir.replace(str(tmp_path), bucket)
        datasets.check_heldout(there)
        below = recipe("")
        below.data.dir = f"{bucket}/"
        for dataset in (*below.data.train.values(), *below.data.validation.values()):
            dataset.path = dataset.path.removeprefix("/")
        assert datasets.stream_configs(below) == datasets.stream_configs(there)
        assert datasets.validation_configs(below) == datasets.validation_configs(there)
        below.data.train.pairs.path = f"{tmp_path}/synthetic_pairs"  # a whole path stays one
        assert datasets.stream_configs(below)[1] == datasets.stream_configs(here)[1]
        assert not datasets.local_dir(below).is_relative_to(tmp_path)
        for split, count in (("heldout", 0), ("train", 7)):
            ours = datasets.draw_documents(here, here.data.heldout.path, split, count)
            assert datasets.draw_documents(there, there.data.heldout.path, split, count) == ours
        folder = datasets.folder(there, there.data.heldout.path)
        pictures = feature_cache._pictures({folder: "train"})
        local = datasets.folder(here, here.data.heldout.path)
        assert pictures == feature_cache._pictures({local: "train"})
        before = feature_cache._fingerprint(folder)
        bucket_files.write(folder / "dataset_info.json", b"{}")
        assert feature_cache._fingerprint(folder) != before
        there.data.train.pairs.split = "nowhere"
        with pytest.raises(ValueError, match=r"data.train.pairs.split: .* damaged"):
            datasets.stream_configs(there)
        there.data.train.pairs.path = f"{bucket}/other"
        with pytest.raises(ValueError, match=r"data.train.pairs.path='gs://bucket/other': no TFDS"):
            datasets.stream_configs(there)


def test_the_demos_data_are_built_on_a_disk():
    config = flamingo.get_config("micro")
    config.data.dir = "gs://bucket/data"
    with pytest.raises(ValueError, match=r"data.source='synthetic' builds on a disk.*gs://bucket"):
        datasets.prepare(config)
