"""The summary of a recipe: against arrays on a mesh, by hand at full size, and as typed."""

import json
import math
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import contrastive, flamingo
from experiments.planning import summary, summary_text
from flamingo_jax.config import FlamingoConfig, from_dict
from flamingo_jax.core import params as params_lib
from flamingo_jax.core import partition
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.train import flops
from flamingo_jax.train.optim import OptimizerConfig, make_optimizer

ROOT = pathlib.Path(__file__).parents[2]
D = 8192


@pytest.fixture(scope="module")
def micro():
    recipe = flamingo.get_config("micro")
    recipe.mesh.update(data=2, fsdp=2, tensor=2)
    recipe.model.language_model.vocab_size = 260  # two devices share it
    recipe.dtypes.frozen = "bfloat16"
    return recipe


@pytest.fixture(scope="module")
def huge():
    return summary.summarize(flamingo.get_config("80b"), 512)


def on_first_device(tree) -> int:
    shards = [leaf.addressable_shards for leaf in jax.tree.leaves(tree)]
    first = jax.devices()[0]
    return sum(s.data.nbytes for group in shards for s in group if s.device == first)


def test_bytes_are_those_of_arrays_on_a_mesh(micro):
    found = summary.summarize(micro)
    config = from_dict(FlamingoConfig, micro.model.to_dict())
    mesh = partition.make_mesh(data=2, fsdp=2, tensor=2)
    _, shapes, axes = params_lib.abstract(lambda rngs: Flamingo(config, Execution(), rngs=rngs))
    where = params_lib.split(partition.shardings(axes, shapes, mesh))
    dtypes = (jnp.float32, jnp.bfloat16)
    trainable, frozen = (
        jax.tree.map(lambda s, w, t=dtype: jax.device_put(np.zeros(s.shape, t), w), tree, places)
        for tree, places, dtype in zip(params_lib.split(shapes), where, dtypes, strict=True)
    )
    sizes = found["bytes_per_device"]
    assert sizes["frozen_parameters"] == on_first_device(frozen)
    assert sizes["trained_parameters"] == sizes["gradients"] == on_first_device(trainable)
    moments = jax.tree.leaves(make_optimizer(OptimizerConfig()).init(trainable))
    counts = sum(leaf.nbytes for leaf in moments if not leaf.shape)
    scalars = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(trainable) if not leaf.shape)
    assert sizes["optimizer_state"] == 2 * sizes["trained_parameters"] + counts - scalars
    assert found["num_devices"] == 8
    parts = found["parameters"]
    assert {name for name, part in parts.items() if part["trained"]} == set(trainable)
    assert sum(part["count"] for part in parts.values()) == params_lib.count(shapes)


def test_flops_are_the_steps(micro):
    found = summary.summarize(micro)["flops_per_step"]
    config = from_dict(FlamingoConfig, micro.model.to_dict())
    batches = [flops.Batch(4, 96, 3), flops.Batch(8, 32, 1)]
    want = flops.step(config, batches, encode_media=True)
    assert found["total"] == sum(passes.total for passes in want.values())
    assert found["forward"] == sum(passes.forward for passes in want.values())
    assert found["datasets"]["pages"] | {"total": 0} == {
        "sequences": 4, "tokens": 384, "frames": 12, "total": 0,
    }  # fmt: skip


def test_microbatches_are_counted_and_shown_and_must_divide(micro):
    recipe = micro.copy_and_resolve_references()
    recipe.microbatches = 2
    with pytest.raises(ValueError, match=r"pages\.batch_size=4 .* 4 .* x 2 microbatches: use 8$"):
        summary.summarize(recipe)
    recipe.data.train.pages.batch_size = 8
    found = summary.summarize(recipe)
    config = from_dict(FlamingoConfig, micro.model.to_dict())
    parts = flops.step(config, [flops.Batch(4, 96, 3), flops.Batch(4, 32, 1)], encode_media=True)
    assert found["flops_per_step"]["total"] == 2 * sum(p.total for p in parts.values())
    assert "visited every step, in 2 parts" in summary_text.render(found)
    recipe.microbatches = 0
    with pytest.raises(ValueError, match=r"^microbatches=0: use 1 or more"):
        summary.summarize(recipe)


def test_what_the_step_does_not_do_is_not_counted(micro):
    recipe = micro.copy_and_resolve_references()
    both = summary.summarize(recipe)["flops_per_step"]
    recipe.data.cache_features = True
    cached = summary.summarize(recipe)["flops_per_step"]
    assert "vision" in both["components"]
    assert "vision" not in cached["components"]
    recipe.accumulate = False
    assert summary.summarize(recipe)["flops_per_step"]["total"] == pytest.approx(
        cached["total"] / 2
    )


def test_80b_by_hand(huge):
    """8 devices share each layer; the model of the paper has 80 blocks and 12 gated ones."""
    assert huge["mesh"] | {"tensor": 8} == huge["mesh"]
    assert huge["num_devices"] == 512 == math.prod(huge["mesh"].values())
    lm = huge["parameters"]["language_model"]
    kernels = 80 * 13 * D**2 + 32_000 * D
    assert lm["count"] == pytest.approx(kernels, rel=1e-3)
    assert lm["bytes_per_device"] == pytest.approx(2 * kernels / 8, rel=1e-3)
    assert lm["dtype"] == "bfloat16"
    assert huge["parameters"]["vision"]["bytes_per_device"] == pytest.approx(2 * 435.3e6, rel=1e-3)
    sizes = huge["bytes_per_device"]
    assert sizes["optimizer_state"] == pytest.approx(2 * sizes["trained_parameters"], rel=1e-3)
    passes = huge["flops_per_step"]["components"]
    assert passes["language_model"]["weight_gradients"] == 0
    tokens = sum(d["tokens"] for d in huge["flops_per_step"]["datasets"].values())
    attention = 1.03  # and its positions, at 32 to 256 tokens
    blocks = 2 * 80 * 12 * D**2 * tokens
    assert blocks < passes["language_model"]["forward"] < attention * blocks


def test_nothing_is_made(micro):
    before = sum(x.nbytes for x in jax.live_arrays())
    summary.summarize(micro)
    assert sum(x.nbytes for x in jax.live_arrays()) - before < 1_000


def test_the_tables_show_the_totals(huge):
    text = summary_text.render(huge)
    assert text.startswith("80b on 512 devices (")
    assert "80.36 B" in text
    assert max(map(len, text.splitlines())) <= 100


def test_columns_are_aligned():
    lines = summary_text.table(["a", "number"], [["long name", "7"]], [["all", "12"]]).split("\n")
    rule = "─────────────────"
    assert lines == ["a          number", rule, "long name       7", rule, "all            12"]


@pytest.mark.parametrize(
    ("value", "want"), [(0, "0"), (999, "999"), (1.374e9, "1.374 G"), (12e6, "12 M")]
)
def test_numbers_have_four_digits(value, want):
    assert summary_text.number(value) == want


@pytest.mark.parametrize(
    ("sizes", "num_devices", "message"),
    [
        ({"data": -1, "tensor": 16}, 24, "does not divide 24 devices: .* multiple of 16"),
        ({"data": 2, "tensor": 4}, 16, "uses 8 of 16 devices: set data=-1"),
        ({"data": -1, "tensor": 0}, None, "sizes are 1 or more"),
        ({"data": -1, "tensor": -1}, None, "at most one axis is -1"),
    ],
)
def test_a_mesh_that_does_not_fit_is_said(sizes, num_devices, message):
    with pytest.raises(ValueError, match=message):
        summary.abstract_mesh(sizes, num_devices)


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("mesh", "data", 3, r"data\.train\.pages\.batch_size=4 .* among 6 .*: use 6"),
        ("execution", "remat", "foo", r"execution\.remat='foo': use one of"),
        ("execution", "images_at_once", 0, r"execution\.images_at_once=0: use 1 or more"),
        ("execution", "attention", "foo", r"execution\.attention='foo': use one of"),
    ],
)
def test_what_a_run_refuses_is_refused(micro, part, key, value, message):
    recipe = micro.copy_and_resolve_references()
    recipe[part][key] = value
    with pytest.raises(ValueError, match=message):
        summary.summarize(recipe)


@pytest.mark.parametrize("attention", ["auto", "xla", "splash", "cudnn"])
def test_kernels_of_every_platform_are_taken(micro, attention):
    recipe = micro.copy_and_resolve_references()
    recipe.execution.attention = attention
    assert summary.summarize(recipe)["num_devices"] == 8


def test_a_recipe_of_another_stage_is_not_sent_to_train():
    with pytest.raises(
        ValueError, match=r"of stage='contrastive', .* experiments\.aot_compile says"
    ):
        summary.summarize(contrastive.get_config("micro"))


def test_as_typed(tmp_path):
    """Without TensorFlow, which alone would take seconds."""
    script = (
        "import sys; sys.modules['tensorflow'] = None; import runpy; "
        "runpy.run_module('experiments.summarize', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", script]
    recipe = "--config=experiments/configs/flamingo.py:micro"
    out = tmp_path / "summary.json"
    done = subprocess.run(
        [*command, recipe, f"--json={out}", "--config.model.cross_attention.kind=graft"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert summary_text.render(json.loads(out.read_text())) == done.stdout.rstrip("\n")
    wrong = subprocess.run(
        [*command, recipe, "--config.model.cross_attention.kind=grafting"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert wrong.stderr == (
        "error: model.cross_attention.kind='grafting': use one of ['gated', 'vanilla', 'graft']\n"
    )
