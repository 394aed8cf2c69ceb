"""A finished model's programs from shapes alone: they are those that a model runs, cut as it is."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from experiments import abstract_serving
from experiments.abstract_serving import Asked
from experiments.configs import flamingo
from flamingo_jax.config import DTypePolicy, from_dict
from flamingo_jax.core import partition
from flamingo_jax.decode.cache import row_bytes
from tests.experiments import prompt_files

ASKED = Asked(prompts=2, tokens=16, media=2, beams=3, max_tokens=4)


@pytest.fixture(scope="module")
def micro():
    mesh = partition.make_mesh(data=2, tensor=2, devices=jax.devices()[:4])
    return abstract_serving.make(flamingo.get_config("micro"), mesh)


def test_a_step_takes_and_gives_back_the_cache_in_place(micro):
    """Keys and values of a device are those of its rows and heads, of text and of media."""
    memory = micro.lower_step(ASKED).compile().memory_analysis()
    rows = ASKED.prompts * ASKED.beams
    slots = ASKED.tokens + ASKED.max_tokens
    policy = from_dict(DTypePolicy, flamingo.get_config("micro").dtypes.to_dict())
    kept = rows * row_bytes(micro.config, slots, ASKED.media, policy.compute)
    assert kept / 4 <= memory.alias_size_in_bytes < 1.1 * kept / 4


def test_the_80b_lowers_in_its_own_size_and_no_array_is_made():
    mesh = partition.make_mesh(tensor=8)
    model = abstract_serving.make(flamingo.get_config("80b"), mesh, "tpu")
    text = model.lower_step(dataclasses.replace(ASKED, tokens=480)).as_text()
    assert "8192x32768" in text
    leaves = jax.tree.leaves(model.params)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    held = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in leaves
    )
    assert held == pytest.approx(23.4e9, rel=0.01)  # 140 GB frozen, 40 GB trained, over 8


def test_prompts_that_a_mesh_does_not_divide_are_one_line_of_the_benchmark():
    pytest.importorskip("libtpu")
    given = ("--config=experiments/configs/flamingo.py:micro", "--topology=v5e:2x2")
    done = prompt_files.run("benchmarks.serving", *given, "--mesh=data=2,tensor=2", "--prompts=3")
    assert (done.returncode, done.stderr) == (2, "error: --prompts=3: use a multiple of 2\n")
