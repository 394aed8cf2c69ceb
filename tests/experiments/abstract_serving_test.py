"""A finished model's programs from shapes alone: they are those that a model runs, cut as it is."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from experiments import abstract_serving
from experiments.abstract_serving import Asked
from experiments.configs import flamingo
from flamingo_jax.aot import cost, hlo, loops
from flamingo_jax.core import partition
from tests.experiments import prompt_files

ASKED = Asked(prompts=2, tokens=16, media=2, beams=3, max_tokens=4)


def test_a_round_of_the_search_reads_the_weights_once_and_each_prompt_once():
    mesh = partition.make_mesh(data=2, tensor=2, devices=jax.devices()[:4])
    model = abstract_serving.make(flamingo.get_config("micro"), mesh)
    program = hlo.parse(model.lower_answer(ASKED).compile().as_text())
    found = cost.of(program, loops.open_loop(program))
    lm = model.config.language_model
    one = 2 * lm.vocab_size * lm.width  # of the logits of a row
    assert found.flops > ASKED.prompts * ASKED.beams * one / 4


def test_the_80b_lowers_in_its_own_size_and_no_array_is_made():
    mesh = partition.make_mesh(tensor=8)
    model = abstract_serving.make(flamingo.get_config("80b"), mesh, "tpu")
    text = model.lower_answer(dataclasses.replace(ASKED, tokens=480)).as_text()
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
