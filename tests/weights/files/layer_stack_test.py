"""A stack of layers is the array numpy would stack, and reads no more than it is asked for."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from flamingo_jax.core import hosts, partition
from flamingo_jax.core.stack import unroll
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files, layer_stack
from flamingo_jax.weights.files.layer_stack import LayerStack

LAYERS = [np.arange(20.0).reshape(4, 5) + 100 * i for i in range(6)]
WHOLE = np.stack(LAYERS).reshape(2, 3, 4, 5)
NAMES = [f"file: kernel of layer {i}" for i in range(6)]


class Counted:
    """A layer that counts the numbers it is asked for."""

    def __init__(self, layer):
        self.layer, self.shape, self.dtype, self.count = layer, layer.shape, layer.dtype, 0

    def __getitem__(self, index):
        part = self.layer[index]
        self.count += part.size
        return part


@pytest.mark.parametrize(
    "index",
    [
        (slice(None),) * 4,
        (0,),
        (1, 2),
        (slice(0, 1), slice(1, 3), slice(None), slice(2, 4)),
        (0, slice(None), slice(1, 2)),
        (..., slice(0, 2)),
    ],
)
def test_it_is_indexed_as_an_array_is(index):
    np.testing.assert_array_equal(LayerStack(LAYERS, (2, 3), NAMES)[index], WHOLE[index])


def test_it_is_an_array_where_one_is_wanted():
    stack = LayerStack(LAYERS, (2, 3), NAMES)
    np.testing.assert_array_equal(np.asarray(stack), WHOLE)
    assert (stack.shape, stack.size, len(stack)) == (WHOLE.shape, WHOLE.size, 2)
    with pytest.raises(ValueError, match=r"6 layers do not make \(4, 2\)"):
        LayerStack(LAYERS, (4, 2), NAMES)


def test_placing_reads_each_part_once():
    counted = [Counted(layer) for layer in LAYERS]
    mesh = partition.make_mesh(4, 1, 2)
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, None, "tensor"))
    placed = hosts.place({"a": LayerStack(counted, (2, 3), NAMES)}, {"a": where}, "bfloat16")["a"]
    np.testing.assert_array_equal(np.asarray(placed), WHOLE.astype(ml_dtypes.bfloat16))
    assert placed.addressable_shards[0].data.shape == (2, 3, 2, 5)
    assert [c.count for c in counted] == [20] * 6  # not 4 times, for each of `data`


def test_a_number_for_a_layer_reads_nothing():
    """So the layers of a model are taken apart, and read one after the other."""
    counted = [Counted(layer) for layer in LAYERS]
    tree = unroll({"layers": {"layers": {"a": LayerStack(counted, (2, 3), NAMES)}}})
    assert [c.count for c in counted] == [0] * 6
    layer = tree["layer_001"]["layer_002"]["a"]
    assert (layer.shape, layer.size, layer.dtype) == ((4, 5), 20, np.float64)
    np.testing.assert_array_equal(layer, LAYERS[5])
    np.testing.assert_array_equal(layer[1:, 2], LAYERS[5][1:, 2])
    assert [c.count for c in counted[:5]] == [0] * 5


def test_layers_that_are_numbers_alone():
    stack = LayerStack([np.float32(i).reshape(()) for i in range(6)], (2, 3), NAMES)
    np.testing.assert_array_equal(stack, np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(stack[1, 2], 5)


def test_a_layer_of_another_shape_is_named():
    with pytest.raises(
        BadWeightsFile, match=r"kernel of layer 3 is \[5, 4\], the first layer's \[4"
    ):
        LayerStack([*LAYERS[:3], LAYERS[3].T, *LAYERS[4:]], (2, 3), NAMES)


def test_layers_that_lie_apart_are_stacked_again_and_not_read():
    counted = [Counted(layer) for layer in LAYERS]
    tree = {
        "a": {"layers": {"layers": {"b": LayerStack(counted, (2, 3), NAMES)}}},
        "layer_1": LAYERS[0],
    }
    apart = traverse_util.flatten_dict(unroll(tree), sep="/")
    assert "a/layer_001/layer_002/b" in apart
    found = layer_stack.restack(apart, "folder")
    assert {*found} == {"a/layers/layers/b", "layer_1"}
    assert [c.count for c in counted] == [0] * 6
    np.testing.assert_array_equal(found["a/layers/layers/b"], WHOLE)
    del apart["a/layer_001/layer_001/b"]
    with pytest.raises(
        BadWeightsFile, match="folder: of a/layers/layers/b there are 5 layers, num"
    ):
        layer_stack.restack(apart, "folder")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_layer_with_nan_is_named_where_it_is_read(dtype, value):
    layers = [layer.astype(jnp.dtype(dtype)) for layer in LAYERS]
    layers[4][2, 3] = value
    stack = LayerStack(layers, (2, 3), NAMES)
    np.testing.assert_array_equal(stack[0], np.stack(layers[:3]))
    assert np.isfinite(stack[1, :, 3].astype(float)).all()  # a device that has not that part
    with pytest.raises(BadWeightsFile, match="kernel of layer 4: a tensor with NaN or inf"):
        np.asarray(stack)


def test_safetensors_are_views_into_the_file(tmp_path):
    file = tmp_path / "model.safetensors"
    tensors = {
        "half": np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3),
        "whole": np.arange(4, dtype=np.int64),
    }
    safetensors.numpy.save_file(tensors, file)
    found = checkpoint_files.tensors(tmp_path)
    for name, want in tensors.items():
        np.testing.assert_array_equal(found[name], want)
        assert found[name].dtype == want.dtype
        assert isinstance(found[name], np.memmap)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(BadWeightsFile, match="damaged"):
        checkpoint_files.tensors(tmp_path)
