"""Pickled dicts of arrays come out as they went in; whatever else is in a pickle is refused."""

import collections
import pickle
import re
import subprocess
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files.numpy_pickle import load_tree


def a_tree():
    rng = np.random.default_rng(0)
    return {
        "a/~/conv": {
            "w": rng.normal(size=(3, 3, 2, 4)).astype(np.float32),
            "w_fortran": np.asfortranarray(rng.normal(size=(5, 7)).astype(np.float16)),
            "sliced": rng.normal(size=(6, 4))[::2, 1:],
        },
        "a": {"gain": np.asarray(np.float32(0.5)), "empty": np.zeros((0, 3), np.float32)},
    }


def written(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_come_out_as_they_went_in(tmp_path, protocol):
    tree = a_tree()
    found = load_tree(written(tmp_path / "F0_haiku.npz", tree, protocol))
    assert {k: [*row] for k, row in found.items()} == {k: [*row] for k, row in tree.items()}
    for module, row in tree.items():
        for name, array in row.items():
            np.testing.assert_array_equal(found[module][name], array)
            assert (found[module][name].dtype, found[module][name].shape) == (
                array.dtype,
                array.shape,
            )
            with pytest.raises(ValueError, match="read-only"):
                found[module][name][...] = 0


def test_scalars_and_other_byte_orders_and_numpy_1s_names(tmp_path):
    tree = {"m": {"scalar": np.float32(2.5), "big": np.arange(3, dtype=">f4")}}
    data = pickle.dumps(tree, 2)
    assert b"numpy._core" in data
    path = tmp_path / "old"
    path.write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    found = load_tree(path)["m"]
    assert (found["scalar"].shape, found["scalar"].item()) == ((), 2.5)
    np.testing.assert_array_equal(found["big"], [0, 1, 2])
    assert found["big"].dtype == np.dtype("<f4")


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_as_dill_writes_them_and_jax(tmp_path, protocol, monkeypatch):
    """dill 0.2.9 to 0.4.1 calls a function of its own, with what numpy would do as arguments."""
    dill = types.ModuleType("dill._dill")

    def _create_array(*_):
        raise AssertionError("called")

    _create_array.__module__, _create_array.__qualname__ = "dill._dill", "_create_array"
    dill._create_array = _create_array
    monkeypatch.setitem(sys.modules, "dill", types.ModuleType("dill"))
    monkeypatch.setitem(sys.modules, "dill._dill", dill)
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tree = {"m": {"dill": Call(_create_array, *array.__reduce__(), None), "jax": jnp.array(array)}}
    for found in load_tree(written(tmp_path / "x", tree, protocol))["m"].values():
        np.testing.assert_array_equal(found, array)
        assert found.dtype == np.float32
    others = {"m": {"w": Call(_create_array, eval, ("1",), ())}}
    with pytest.raises(BadWeightsFile, match=r"refused to build .*eval"):
        load_tree(written(tmp_path / "y", others, protocol))
    others = {"m": {"w": Call(_create_array, np.ndarray, ((2,),), ())}}
    with pytest.raises(BadWeightsFile, match="an array that numpy does not make"):
        load_tree(written(tmp_path / "y", others, protocol))


def test_an_ordered_dict_is_a_dict(tmp_path):
    tree = collections.OrderedDict({"m": collections.OrderedDict(w=np.ones(2, np.float32))})
    assert type(load_tree(written(tmp_path / "x", tree))["m"]) is dict


class Call:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


class Ours(np.ndarray):
    pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Call(eval, "1/0"), r"refused to build builtins\.eval"),
        ({"m": {"w": Call(subprocess.run, "true")}}, r"refused to build subprocess\.run"),
        ({"m": {"w": np.array([object()], object)}}, "an array of type 'O8'"),
        ({"m": {"w": np.arange(3)}}, "an array of type 'i8', want one of"),
        ({"m": {"w": np.ones(3).view(Ours)}}, r"refused to build .*Ours"),
        ({"m": {"w": np.ones(1, [("a", "f4")])}}, "an array of type 'V4'"),
        ({"m": {"w": [1.0, 2.0]}}, "'m' has 'w', a list, not an array"),
        ({"m": np.ones(2)}, "module 'm' holds a _Array, want modules"),
        ([np.ones(2)], "the file holds a list, want modules and their parameters"),
        ({"m": {"w": np.dtype("f4")}}, "'m' has 'w', a _DType, not an array"),
    ],
)
def test_what_is_no_tree_of_arrays_is_one_line(tmp_path, value, message):
    with pytest.raises(BadWeightsFile, match=message) as raised:
        load_tree(written(tmp_path / "x", value))
    assert "\n" not in str(raised.value)


def test_every_truncation_is_one_clear_error(tmp_path):
    data = pickle.dumps({"m": {"w": np.ones(9, np.float32), "b": np.float32(1)}}, 4)
    path = tmp_path / "x"
    for stop in range(len(data)):
        path.write_bytes(data[:stop])
        with pytest.raises(BadWeightsFile, match="cut short"):
            load_tree(path)


def test_lengths_that_lie_and_arrays_that_are_never_filled(tmp_path):
    whole = pickle.dumps({"m": {"w": np.arange(4, dtype=np.float32)}}, 2)
    path = tmp_path / "x"
    for old, new in ((b"K\x04\x85", b"K\x05\x85"), (b"bss.", b"0ss.")):
        assert old in whole
        path.write_bytes(whole.replace(old, new, 1))
        with pytest.raises(BadWeightsFile, match=re.escape(str(path))):
            load_tree(path)


@pytest.mark.parametrize(
    ("name", "message"), [("nothing", "No such file"), ("", "cannot be read .Is a directory")]
)
def test_a_file_that_is_not_there(tmp_path, name, message):
    with pytest.raises(BadWeightsFile, match=message):
        load_tree(tmp_path / name)
