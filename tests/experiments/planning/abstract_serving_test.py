"""A finished model's programs from shapes alone: they are those that a model runs, cut as it is."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from experiments.configs import flamingo
from experiments.planning import abstract_serving
from experiments.planning.abstract_serving import Asked
from flamingo_jax.aot import cost, hlo, loops
from flamingo_jax.core import partition
from tests.experiments import prompt_files

ASKED = Asked(prompts=2, tokens=16, media=2, beams=3, max_tokens=4)


def test_beams_share_what_is_kept_of_their_prompt_and_a_round_of_them_is_counted():
    mesh = partition.make_mesh(data=2, tensor=2, devices=jax.devices()[:4])
    model = abstract_serving.make(flamingo.get_config("micro"), mesh)
    lowered = model.lower_answer(ASKED)
    text, rows = lowered.as_text(), ASKED.prompts * ASKED.beams
    lm, xattn = model.config.language_model, model.config.cross_attention
    heads = f"{lm.kv_heads}x{lm.head_dim}x"
    assert f"x{ASKED.prompts}x{ASKED.tokens}x{heads}" in text
    assert f"x{rows}x{ASKED.max_tokens}x{heads}" in text
    for num_slots in (ASKED.tokens, ASKED.tokens + ASKED.max_tokens):
        assert f"x{rows}x{num_slots}x{heads}" not in text
    visual = ASKED.media * model.config.resampler.num_latents
    heads = f"{visual}x{xattn.num_heads}x{xattn.head_dim}x"
    assert f"x{ASKED.prompts}x{heads}" in text
    assert f"x{rows}x{heads}" not in text
    program = hlo.parse(lowered.compile().as_text())
    logits = 2 * rows * lm.vocab_size * lm.width / 4  # of a device
    assert cost.of(program, loops.open_loop(program)).flops > logits


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
    assert held == pytest.approx(20.9e9, rel=0.01)  # 140 GB frozen, 20 GB trained, over 8


def test_prompts_that_a_mesh_does_not_divide_are_one_line_of_the_benchmark():
    pytest.importorskip("libtpu")
    given = ("--config=experiments/configs/flamingo.py:micro", "--topology=v5e:2x2")
    done = prompt_files.run("benchmarks.serving", *given, "--mesh=data=2,tensor=2", "--prompts=3")
    assert (done.returncode, done.stderr) == (2, "error: --prompts=3: use a multiple of 2\n")
