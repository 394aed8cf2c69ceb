"""What is written a piece at a time, the package safetensors reads as it was."""

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from flamingo_jax.weights.files import checkpoint_files, folders, tensor_file


class Watched:
    """A matrix that counts how much of it is looked at together."""

    def __init__(self, values):
        self.values, self.most = values, 0
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, index):
        found = self.values[index]
        self.most = max(self.most, found.size)
        return found

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("read whole")


def a_tree():
    rng = np.random.default_rng(0)
    return {
        "a": {"kernel": rng.normal(size=(4, 6)).astype(np.float32).T, "bias": np.ones(3, "f2")},
        "gate": np.asarray(np.float32(0.5)),
        "wide": rng.normal(size=(3, 5)).astype(ml_dtypes.bfloat16),
        "none": np.zeros((0, 4), np.float32),
        "number": np.arange(7),
    }


def flat(tree):
    return {f"a/{k}": v for k, v in tree["a"].items()} | {k: v for k, v in tree.items() if k != "a"}


def test_the_package_reads_what_was_written(tmp_path):
    path, tree, written = tmp_path / "x.safetensors", a_tree(), []
    tensor_file.save(path, tree, tick=written.append)
    found = safetensors.numpy.load_file(path)
    assert found.keys() == flat(tree).keys()
    for name, array in flat(tree).items():
        np.testing.assert_array_equal(found[name], array)
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
    assert sum(written) == sum(array.nbytes for array in flat(tree).values())
    ours = checkpoint_files.tensors(path)
    assert all(array.flags.aligned for array in ours.values())


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, "bfloat16"])
def test_one_dtype_for_all(tmp_path, dtype):
    tree = a_tree()
    tensor_file.save(tmp_path / "x", tree, dtype)
    for name, array in safetensors.numpy.load_file(tmp_path / "x").items():
        np.testing.assert_array_equal(array, flat(tree)[name].astype(dtype))
        assert array.dtype == np.dtype(dtype)


@pytest.mark.parametrize("shape", [(40,), (7, 9), (1, 5, 4, 3), (3, 1, 2, 50), (2, 3, 2, 2, 2)])
@pytest.mark.parametrize("piece", [1, 6, 20])
def test_pieces_follow_each_other(tmp_path, monkeypatch, shape, piece):
    monkeypatch.setattr(tensor_file, "_PIECE", piece)
    leaf = Watched(np.random.default_rng(0).normal(size=shape))
    tensor_file.save(tmp_path / "x", {"leaf": leaf})
    np.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / "x")["leaf"], leaf.values)
    assert leaf.most <= piece


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    def write():
        with folders.whole(tmp_path / "out") as partial:
            (partial / "file").write_text("half")
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write()
    assert not list(tmp_path.iterdir())
