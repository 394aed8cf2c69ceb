"""The towers' optimizer: each part's clip, against optax and by hand, and the schedule's ends."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flamingo_jax.train.contrastive_optim import (
    ContrastiveOptimizerConfig,
    adaptive_clip,
    make_optimizer,
)


def clipped(grads, params, share=0.01):
    return adaptive_clip(share).update(grads, optax.EmptyState(), params)[0]


def test_units_are_clipped_as_optax_does_it_where_no_layers_are_stacked():
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 3, 4, 8), "linear": (6, 5), "gain": (8,), "skip_gain": ()}
    params, grads = (
        {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
        for _ in range(2)
    )
    want = optax.adaptive_grad_clip(0.01).update(grads, optax.EmptyState(), params)[0]
    found = clipped(grads, params)
    for name in shapes:
        np.testing.assert_allclose(found[name], want[name], rtol=1e-5)
        assert np.abs(found[name]).sum() < np.abs(grads[name]).sum()


def test_stacked_layers_are_clipped_one_by_one():
    rng = np.random.default_rng(1)
    kernel, gain = rng.normal(size=(2, 3, 1, 1, 4, 8)), rng.normal(size=(2, 3, 8))
    params, grads = ({"kernel": kernel[i], "gain": gain[i]} for i in range(2))
    stacked = clipped({"layers": grads}, {"layers": params})["layers"]
    for layer in range(3):
        alone = clipped(*({k: v[layer] for k, v in tree.items()} for tree in (grads, params)))
        for name in params:
            np.testing.assert_allclose(stacked[name][layer], alone[name], rtol=1e-5)


def test_each_tower_is_clipped_in_its_own_way_and_the_rest_not_at_all():
    """Plain descent in the place of Adam: what comes out is the gradient, clipped."""
    params = {
        "encoder": {"kernel": jnp.ones((4, 2))},
        "text": {"kernel": jnp.ones((4, 2))},
        "text_projection": {"kernel": jnp.ones((4, 2))},
    }
    grads = jax.tree.map(lambda x: 100 * x, params)
    chain = make_optimizer(ContrastiveOptimizerConfig(vision_clip=0.5, text_clip_norm=3.0), 10)
    state = chain.init(params)
    # The first moment after one update is a tenth of the gradient that Adam saw.
    _, state = chain.update(grads, state, params)
    seen = jax.tree.map(lambda m: 10 * m, optax.tree_utils.tree_get(state, "mu"))
    np.testing.assert_allclose(seen["encoder"]["kernel"], 0.5, rtol=1e-5)  # half of each weight
    np.testing.assert_allclose(jnp.linalg.norm(seen["text"]["kernel"]), 3.0, rtol=1e-5)
    np.testing.assert_allclose(seen["text_projection"]["kernel"], 100.0, rtol=1e-5)


def test_the_rate_falls_straight_to_nothing():
    schedule = ContrastiveOptimizerConfig(learning_rate=1e-3).schedule(100)
    np.testing.assert_allclose([schedule(s) for s in (0, 50, 100)], [1e-3, 5e-4, 0], atol=1e-9)
    warm = ContrastiveOptimizerConfig(learning_rate=1e-3, warmup_steps=20).schedule(100)
    np.testing.assert_allclose([warm(s) for s in (0, 10, 20, 60)], [0, 5e-4, 1e-3, 5e-4], rtol=1e-5)


@pytest.mark.parametrize("field", ["vision_clip", "text_clip_norm", "eps"])
def test_what_would_train_nothing_is_refused(field):
    with pytest.raises(ValueError, match=f"optim.{field}=0.0: use more than 0"):
        ContrastiveOptimizerConfig(**{field: 0.0})


def test_a_warm_up_as_long_as_the_run_is_refused():
    with pytest.raises(ValueError, match=r"optim.warmup_steps=10: use less than steps=10"):
        ContrastiveOptimizerConfig(warmup_steps=10).schedule(10)
