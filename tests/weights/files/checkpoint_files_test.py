"""Checkpoints as publishers lay them out: one file, shards in a folder, and what is wrong there."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files

A = {"a": np.arange(6, dtype=np.float16).reshape(2, 3)}
B = {"b": np.ones(4, ml_dtypes.bfloat16)}


@pytest.fixture
def shards(tmp_path):
    for i, part in enumerate((A, B), 1):
        safetensors.numpy.save_file(part, tmp_path / f"model-0000{i}-of-00002.safetensors")
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_shards_are_one_set_of_tensors_in_their_own_dtypes(shards):
    found = checkpoint_files.tensors(shards)
    assert {name: str(x.dtype) for name, x in found.items()} == {"a": "float16", "b": "bfloat16"}
    np.testing.assert_array_equal(found["a"], A["a"])
    one = checkpoint_files.tensors(shards / "model-00002-of-00002.safetensors")
    assert list(one) == ["b"]


def test_a_folders_hash_changes_with_any_weight_name_or_setting(shards):
    seen = {checkpoint_files.sha256(shards)}
    (shards / "config.json").write_text('{"vocab_size": 2}')
    seen.add(checkpoint_files.sha256(shards))
    safetensors.numpy.save_file({"b": 2 * B["b"]}, shards / "model-00002-of-00002.safetensors")
    seen.add(checkpoint_files.sha256(shards))
    (shards / "model-00002-of-00002.safetensors").rename(shards / "other.safetensors")
    seen.add(checkpoint_files.sha256(shards))
    assert len(seen) == 4
    (shards / "README.md").write_text("not a weight")
    assert checkpoint_files.sha256(shards) in seen
    whole, read = sum(f.stat().st_size for f in checkpoint_files.hashed_files(shards)), []
    checkpoint_files.sha256(shards, read.append)
    assert sum(read) == whole


def test_what_is_missing_doubled_or_cut_is_named(shards, tmp_path_factory):
    with pytest.raises(BadWeightsFile, match="nowhere is missing: give"):
        checkpoint_files.tensors(shards / "nowhere")
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(BadWeightsFile, match="holds no weights: want one of"):
        checkpoint_files.sha256(empty)
    (shards / "twice.safetensors").write_bytes(
        (shards / "model-00001-of-00002.safetensors").read_bytes()
    )
    with pytest.raises(BadWeightsFile, match="tensor a is in another shard too"):
        checkpoint_files.tensors(shards)
    (shards / "twice.safetensors").write_bytes(b"cut")
    with pytest.raises(BadWeightsFile, match=r"twice\.safetensors is damaged"):
        checkpoint_files.tensors(shards)


@pytest.mark.parametrize("shape", [[1] * 70, [0, 2**62, 8]])
def test_a_shape_that_no_array_has_is_named(tmp_path, shape):
    """The package safetensors takes both: the sizes in the header agree."""
    size = 4 * (0 not in shape)
    header = {"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    with pytest.raises(BadWeightsFile, match=r"x\.safetensors is damaged \(tensor x"):
        checkpoint_files.tensors(tmp_path)


def test_a_shard_that_the_index_names_and_that_is_not_there_is_named(shards):
    first, second = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    index = shards / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": first, "b": second}}))
    assert len(checkpoint_files.tensors(shards)) == 2
    (shards / second).unlink()
    for read in (checkpoint_files.tensors, checkpoint_files.sha256):
        with pytest.raises(BadWeightsFile, match=f"lacks {second}, one of 2 files that model.safe"):
            read(shards)
    (shards / first).rename(shards / "model.safetensors")  # the index is of other files
    assert [*checkpoint_files.tensors(shards)] == ["a"]


@pytest.mark.parametrize("whole", [False, True])
def test_another_checkpoint_beside_transformers_own_is_passed_over(shards, whole):
    """As in Mistral's folders: the same weights once more, under other names, in one file."""
    alone = checkpoint_files.sha256(shards)
    for name in ("model", "consolidated"):
        files = {x: f"{name}-0000{i}-of-00002.safetensors" for i, x in enumerate("ab", 1)}
        index = json.dumps({"weight_map": files})
        (shards / f"{name}.safetensors.index.json").write_text(index)
    for i, part in enumerate(({"x": A["a"]}, {"y": A["a"]}), 1):
        safetensors.numpy.save_file(part, shards / f"consolidated-0000{i}-of-00002.safetensors")
    if whole:
        safetensors.numpy.save_file(A | B, shards / "model.safetensors")
    assert {*checkpoint_files.tensors(shards)} == {"a", "b"}
    assert (checkpoint_files.sha256(shards) == alone) is not whole
