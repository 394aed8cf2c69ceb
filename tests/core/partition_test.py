"""Meshes and their errors; a sharded step on eight virtual devices is the unsharded one."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from flamingo_jax.core import params as params_lib
from flamingo_jax.core import partition
from flamingo_jax.train import state
from flamingo_jax.train.step import make_train_step
from tests import tiny_flamingo as tiny

pytestmark = pytest.mark.skipif(jax.device_count() != 8, reason="conftest makes eight CPU devices")


def test_an_axis_may_take_a_part_of_a_torus_axis():
    """64 chips in a cube of 4: no whole sides make 8 and 8, so one side is split."""
    torus = [
        types.SimpleNamespace(
            id=i, platform="tpu", device_kind="TPU v4", process_index=i // 4, core_on_chip=0,
            coords=(i % 4, i // 4 % 4, i // 16),
        )
        for i in range(64)
    ]  # fmt: skip
    found = partition._arrange((1, 8, 1, 8), torus, 1)
    assert found.shape == (1, 8, 1, 8)
    assert {device.id for device in found.flat} == set(range(64))
    for group in found[0, :, 0]:  # a box of chips, not eight from everywhere
        spans = np.ptp([device.coords for device in group], axis=0) + 1
        assert np.prod(spans) == 8


def test_a_free_axis_takes_what_the_others_leave():
    def sizes(*args, **kwargs):
        return tuple(partition.make_mesh(*args, **kwargs).shape.values())

    assert partition.MESH_AXES == ("slice", "data", "fsdp", "tensor")
    assert sizes() == (1, 8, 1, 1)
    assert sizes(2, -1, 2) == (1, 2, 2, 2)
    assert sizes(2, -1, 1, slice=2) == (2, 2, 2, 1)
    assert sizes(devices=jax.devices()[:3]) == (1, 3, 1, 1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((-1, 3, 1), "make 3, the nearest that divides is 2"),
        ((-1, 16, 1), "make 16, the nearest that divides is 8"),
        ((3, 5, 1), "make 15, the nearest that divides is 8"),
        ((2, 2, 1), "uses 4 of 8 devices: set data=-1"),
        ((-1, -1, 1), "at most one axis is -1"),
        ((0, 1, 1), "1 or more"),
    ],
)
def test_a_mesh_that_does_not_fit_says_what_would(sizes, message):
    with pytest.raises(ValueError, match=message):
        partition.make_mesh(*sizes)


def test_two_dims_on_one_mesh_axis_are_refused():
    assert partition.spec(("embed", "heads", None)) == PartitionSpec("fsdp", "tensor", None)
    with pytest.raises(ValueError, match=r"\('heads', 'mlp'\) map twice"):
        partition.spec(("heads", "mlp"))
    with pytest.raises(ValueError, match="map twice"):
        partition.spec(("batch", "embed"))  # the batch is cut over fsdp as well


def test_a_misspelt_axis_is_refused_and_not_left_whole():
    with pytest.raises(ValueError, match=r"logical axes \['hedas'\]: RULES has"):
        partition.spec(("hedas", "embed"))


def test_a_dim_that_does_not_divide_is_named_with_its_path():
    mesh = partition.make_mesh(1, 1, 8)
    shapes = {"block": {"up": jax.ShapeDtypeStruct((16, 36), jnp.float32)}}
    with pytest.raises(ValueError, match=r"block/up: dim 1 \(mlp\) is 36, .* of 8 .*: use 6"):
        partition.shardings({"block": {"up": ("embed", "mlp")}}, shapes, mesh)


def test_few_key_heads_are_kept_whole():
    mesh = partition.make_mesh(1, 2, 4)
    shapes = {"key": jax.ShapeDtypeStruct((16, 2, 8), jnp.float32)}
    found = partition.shardings({"key": ("embed", "kv_heads", None)}, shapes, mesh)
    assert found["key"].spec == PartitionSpec("fsdp", None, None)


def test_constrain_reads_the_same_table():
    assert partition.constrain(np.ones(3), "embed") is not None  # no mesh: nothing happens
    mesh = partition.make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        y = jax.jit(lambda x: partition.constrain(x, "batch", None, "heads"))(jnp.ones((4, 2, 2)))
    assert y.sharding.spec == PartitionSpec(("data", "fsdp"), None, "tensor")


@pytest.fixture(scope="module")
def results():
    """(logits, state, metrics) of one train step: whole, and with every mesh axis above 1.

    The optimizer is linear in the gradient, so that a wrong one of any size shows.
    """
    config = tiny.changed(lm={"num_layers": 4}, cross_attention={"offset": 0})  # one segment
    graph, shapes, axes = tiny.abstract(config)
    batch = tiny.random_batch(batch_size=4)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0, momentum=0.9))
    train_step = make_train_step(graph, config, optimizer, {"pages": 1.0})

    def run(mesh):
        where = partition.shardings(axes, shapes, mesh)
        trainable, frozen = params_lib.split(jax.device_put(tiny.random_params(config), where))
        start = state.create(trainable, optimizer, 0, mesh)
        on_devices = jax.device_put(batch, partition.batch_sharding(mesh))

        def both(now, frozen, batch):
            model_params = params_lib.merge(now.trainable, frozen)
            logits = nnx.merge(graph, model_params)(batch)
            return logits, train_step(now, frozen, {"pages": batch})

        out = (None, (jax.tree.map(lambda leaf: leaf.sharding, start), None))
        with jax.set_mesh(mesh):
            step = jax.jit(both, out_shardings=out)
            logits, (after, row) = step(start, frozen, on_devices)
        return logits, after, row

    return run(partition.make_mesh(devices=jax.devices()[:1])), run(partition.make_mesh(2, 2, 2))


def test_parameters_and_moments_are_cut(results):
    after = results[1][1]
    up = after.trainable["gated_xattn"]["groups"]["layers"]["ffw"]["up"]["kernel"]
    assert up.sharding.spec == PartitionSpec(None, ("data", "fsdp"), "tensor")
    assert up.addressable_shards[0].data.size == up.size // 8
    moments = optax.tree_utils.tree_get(after.opt_state, "trace")["gated_xattn"]["groups"]["layers"]
    assert moments["ffw"]["up"]["kernel"].sharding == up.sharding


def test_sharded_logits_equal_unsharded_ones(results):
    (want, *_), (found, *_) = results
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_a_sharded_train_step_equals_an_unsharded_one(results):
    (_, want, want_row), (_, found, row) = results
    for name in want_row:
        np.testing.assert_allclose(row[name], want_row[name], atol=1e-5, err_msg=name)
    for a, b in zip(*map(jax.tree.leaves, (found.trainable, want.trainable)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(("platform", "slices"), [("tpu", 4), ("gpu", 1)])
def test_hosts_of_gpus_are_no_slices(platform, slices):
    """JAX numbers them as if they were."""
    devices = [
        types.SimpleNamespace(platform=platform, slice_index=host)
        for host in range(4)
        for _ in "12"
    ]
    assert partition.num_slices_of(devices) == slices
