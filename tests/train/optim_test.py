"""Schedule, decay groups, clipping and the gates' multiplier, each by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from flamingo_jax.core import params as params_lib
from flamingo_jax.train.optim import OptimizerConfig, decays, is_gate, make_optimizer
from tests import tiny_flamingo as tiny

NOW = OptimizerConfig(learning_rate=0.1, warmup_steps=1, weight_decay=0.0, clip_norm=1e9)


def tree(value=1.0):
    """One leaf of each kind."""
    gated = {
        "query": {"kernel": jnp.full((2, 2), value)},
        "norm": {"scale": jnp.full(2, value)},
        "attention_gate": jnp.full(3, value),
        "ffw_gate": jnp.full(3, value),
    }
    return {
        "gated_xattn": {"groups": {"layers": gated}},
        "resampler": {"blocks": {"out": {"kernel": jnp.full((2, 2), value)}}},
        "new_tokens": {"embedding": jnp.full((2, 2), value)},
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [("learning_rate", -1.0), ("learning_rate", float("nan")), ("clip_norm", 0.0), ("b1", 1.0)],
)
def test_a_number_that_would_train_nothing_is_refused(field, value):
    """A clip_norm of 0 is no "off": it makes every update 0."""
    with pytest.raises(ValueError, match=f"^optim.{field}={value}: use "):
        OptimizerConfig(**{field: value})


def second_update(config, gradient, params=None):
    """The update of step 1, the first with a learning rate, where step 0's gradient is the same."""
    params = tree() if params is None else params
    optimizer = make_optimizer(config)
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(gradient, state, params)
    return traverse_util.flatten_dict(updates, sep="/")


def test_the_papers_schedule():
    schedule = OptimizerConfig().schedule()
    assert [float(schedule(step)) for step in (0, 2500)] == pytest.approx([0, 5e-5])
    assert [float(schedule(step)) for step in (5000, 5001, 10**6)] == pytest.approx([1e-4] * 3)


def test_a_rate_that_falls_is_a_tenth_after_every_so_many_steps():
    schedule = OptimizerConfig(learning_rate=1e-5, warmup_steps=10, decay_steps=100).schedule()
    found = [float(schedule(step)) for step in (5, 10, 109, 110, 209, 210)]
    assert found == pytest.approx([5e-6, 1e-5, 1e-5, 1e-6, 1e-6, 1e-7])
    at_once = OptimizerConfig(learning_rate=1e-5, warmup_steps=0, decay_steps=100).schedule()
    assert [float(at_once(step)) for step in (0, 99, 100)] == pytest.approx([1e-5, 1e-5, 1e-6])


def test_the_first_update_has_the_learning_rate_of_step_zero():
    optimizer = make_optimizer(NOW)
    updates, _ = optimizer.update(tree(), optimizer.init(tree()), tree())
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))


def test_adam_by_hand():
    """Constant gradients: mean and root of the second moment are 1 after bias correction."""
    updates = second_update(NOW, tree(0.25))
    np.testing.assert_allclose(updates["resampler/blocks/out/kernel"], -0.1, rtol=1e-5)


def test_only_matrices_of_the_gated_blocks_decay():
    config = dataclasses.replace(NOW, weight_decay=0.5)
    updates = second_update(config, tree(0.0), tree(2.0))
    moved = {path: leaf.ravel()[0] for path, leaf in updates.items() if (leaf != 0).any()}
    assert moved == {"gated_xattn/groups/layers/query/kernel": pytest.approx(-0.1 * 0.5 * 2)}


def test_decay_of_the_real_model_by_path():
    flat = traverse_util.flatten_dict(params_lib.split(tiny.abstract()[1])[0])
    decayed = {path for path in flat if decays(path)}
    assert {path[0] for path in decayed} == {"gated_xattn"}
    assert {path[-2] for path in decayed} == {"query", "key", "value", "out", "up", "down"}
    assert sum(is_gate(path) for path in flat) == 4  # two branches, in groups and in rest
    assert not any(is_gate(path) and decays(path) for path in flat)


def test_the_gate_multiplier_scales_gates_only():
    one = second_update(NOW, tree())
    ten = second_update(dataclasses.replace(NOW, gate_multiplier=10.0), tree())
    for path in one:
        factor = 10 if path.endswith("_gate") else 1
        np.testing.assert_allclose(ten[path], factor * one[path], rtol=1e-6, err_msg=path)


def test_the_language_models_multiplier_scales_it_alone_and_its_kernels_decay():
    params = {
        "language_model": {"embedding": jnp.full(2, 2.0), "kernel": jnp.full(2, 2.0)},
        "vision": {"kernel": jnp.full(2, 2.0)},
    }
    config = dataclasses.replace(NOW, weight_decay=0.5, language_model_multiplier=0.1)
    optimizer = make_optimizer(config)
    state = optimizer.init(params)
    grads = jax.tree.map(jnp.ones_like, params)
    for _ in range(2):
        updates, state = optimizer.update(grads, state, params)
    np.testing.assert_allclose(updates["language_model"]["embedding"], -0.01, rtol=1e-4)
    np.testing.assert_allclose(updates["language_model"]["kernel"], -0.01 * (1 + 1), rtol=1e-4)
    np.testing.assert_allclose(updates["vision"]["kernel"], -0.1, rtol=1e-4)


def test_clipping_is_by_the_norm_over_all_leaves():
    """Adam forgets a constant scale, so two gradients of unlike size tell: 4, then 1.

    With the first cut to norm 1 the moments are those of the gradients 1 / sqrt(n) and 1 / sqrt(n).
    """
    count = params_lib.count(tree())
    optimizer = make_optimizer(dataclasses.replace(NOW, clip_norm=1.0))
    state = optimizer.init(tree())
    for scale in (4.0, count**-0.5):
        updates, state = optimizer.update(tree(scale), state, tree())
    np.testing.assert_allclose(updates["new_tokens"]["embedding"], -0.1, rtol=1e-4)


def test_without_warm_up_the_first_update_counts():
    schedule = OptimizerConfig(learning_rate=0.1, warmup_steps=0).schedule()
    assert [float(schedule(step)) for step in (0, 1)] == pytest.approx([0.1, 0.1])
