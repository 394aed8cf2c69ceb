"""Files of bounded size with an index, as the package safetensors and transformers read them."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files, tensor_shards
from flamingo_jax.weights.files.tensor_shards import Group


def some(seed):
    rng = np.random.default_rng(seed)
    sizes = {"a": (3, 4), "wide": (10, 10), "b": (2,), "c": (4, 4), "gate": (), "none": (0, 2)}
    return {f"{n}/{seed}": rng.normal(size=s).astype(np.float32) for n, s in sizes.items()}


def test_no_file_is_larger_and_every_tensor_is_where_the_index_says(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_shards, "MAX_BYTES", 120)
    groups, written = [Group(some(1)), Group(some(2), ml_dtypes.bfloat16)], []
    number = tensor_shards.save(tmp_path, groups, tick=written.append)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    places = index["weight_map"]
    assert [*places] == [*some(1), *some(2)]
    assert number == len(places) == 12
    files = sorted({*places.values()})
    assert files == sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == [
        f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))
    ]
    found, total = {}, 0
    for file in files:
        part = safetensors.numpy.load_file(tmp_path / file)
        assert {*part} == {name for name, place in places.items() if place == file}
        size = sum(array.nbytes for array in part.values())
        assert size <= 120 or len(part) == 1
        assert len({array.dtype for array in part.values()}) == 1
        found, total = found | part, total + size
    assert (
        total == sum(written) == index["metadata"]["total_size"] == tensor_shards.num_bytes(groups)
    )
    for name, array in some(1).items():
        np.testing.assert_array_equal(found[name], array)
    for name, array in some(2).items():
        np.testing.assert_array_equal(found[name], array.astype(ml_dtypes.bfloat16))
        assert (found[name].dtype, found[name].shape) == (ml_dtypes.bfloat16, array.shape)
    assert checkpoint_files.tensors(tmp_path).keys() == found.keys()


def test_what_fits_into_one_file_has_no_index(tmp_path):
    assert not tensor_shards.are_in(tmp_path)
    tensor_shards.save(tmp_path, [Group(some(1))], metadata={"format": "pt"})
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert tensor_shards.are_in(tmp_path)
    with safetensors.safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
        assert {*file.keys()} == {*some(1)}


def test_a_shard_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_shards, "MAX_BYTES", 100)
    tensor_shards.save(tmp_path, [Group(some(1))])
    gone = "model-00002-of-00003.safetensors"
    (tmp_path / gone).unlink()
    with pytest.raises(BadWeightsFile, match=f"lacks {gone}, one of 3 files that model.saf"):
        checkpoint_files.tensors(tmp_path)
