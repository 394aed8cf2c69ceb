"""The step that is compiled ahead of time: of a real recipe, for chips that are not there."""

import jax
import numpy as np
import pytest

from experiments.configs import contrastive, flamingo, language_model
from experiments.planning import abstract_pretraining_step, abstract_step
from flamingo_jax.core import op_count, partition


def device_bytes(tree) -> int:
    """What the first device holds of a tree of shapes with shardings."""
    leaves = jax.tree.leaves(tree)
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize for leaf in leaves
    )


def recipe(variant: str, pages: int, pairs: int):
    found = flamingo.get_config(variant)
    found.data.train.pages.batch_size = pages
    found.data.train.pairs.batch_size = pairs
    return found


def test_9b_is_lowered_for_eight_gpus_and_its_state_fits_them():
    """The public parts, frozen weights cut in two and the batch in four; 80 GB a GPU."""
    found = recipe("9b_public", pages=16, pairs=32)
    found.mesh.tensor = 2
    mesh = partition.make_mesh(**found.mesh)
    step = abstract_step.make(found, mesh, platform="cuda")
    text = step.lower().as_text()
    assert "mhlo.num_partitions = 8" in text
    assert "sdy.sharding" in text
    assert device_bytes((step.state, step.frozen)) < 20e9  # the rest is for activations


def test_a_recipes_options_reach_the_compiler_they_are_for():
    found = recipe("micro", pages=8, pairs=8)
    mesh = partition.make_mesh(**found.mesh)
    make = lambda platform: abstract_step.make(found, mesh, platform).compiler_options  # noqa: E731
    assert make("tpu") == found.compiler_options.tpu.to_dict() != {}
    assert make("cuda") == make("cpu") == {}
    found.compiler_options.cpu = {"xla_no_such_option": True}
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        abstract_step.make(found, mesh, "cpu").lower().compile()


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_made():
    with pytest.raises(ValueError, match=r"data\.train\.pages"):
        abstract_step.make(recipe("9b_public", pages=12, pairs=32), partition.make_mesh())
    found = recipe("9b_public", pages=16, pairs=24)
    found.microbatches = 2
    with pytest.raises(ValueError, match=r"pairs\.batch_size=24 .* 8 .* x 2 microb.*: use 32"):
        abstract_step.make(found, partition.make_mesh())


def test_the_recipes_microbatches_are_in_the_step_and_in_its_count():
    found = recipe("micro", pages=16, pairs=16)
    found.microbatches = 2
    step = abstract_step.make(found, partition.make_mesh())
    assert step.model_flops == op_count.flops(step.step, step.state, step.frozen, step.batches)


@pytest.mark.parametrize("recipe", [contrastive.micro, language_model.micro])
def test_the_stages_before_are_lowered_with_what_they_would_pass(recipe):
    config = recipe()
    mesh = partition.make_mesh(data=4, fsdp=2)
    found = abstract_pretraining_step.make(config, mesh)
    assert set(found.batches) == set(config.data.train)
    assert found.model_flops > 0
    described = found.lower().as_text()
    assert "stablehlo.dot_general" in described
