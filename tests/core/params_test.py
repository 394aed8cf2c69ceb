"""What is frozen is decided by path; split, merge, dtypes, the parameter table."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from flamingo_jax.config import DTypePolicy
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.models.resampler import PerceiverResampler
from tests import tiny_flamingo as tiny


def test_split_puts_the_two_frozen_parts_on_one_side():
    trainable, frozen = params_lib.split(tiny.abstract()[1])
    assert set(trainable) == {"resampler", "gated_xattn", "new_tokens"}
    assert set(frozen) == {"vision", "language_model"}


def test_a_frozen_leaf_with_a_trained_name_stays_frozen():
    assert params_lib.is_trainable(("resampler", "norm", "scale"))
    assert not params_lib.is_trainable(("language_model", "resampler", "kernel"))


def test_merge_is_the_inverse_of_split():
    tree = tiny.random_params()
    merged = params_lib.merge(*params_lib.split(tree))
    assert jax.tree.structure(merged) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, merged, tree)


def test_cast_by_policy():
    policy = DTypePolicy(frozen="bfloat16", trainable="float32")
    trainable, frozen = params_lib.cast(*params_lib.split(tiny.random_params()), policy)
    assert {x.dtype for x in jax.tree.leaves(trainable)} == {jnp.dtype("float32")}
    assert {x.dtype for x in jax.tree.leaves(frozen)} == {jnp.dtype("bfloat16")}


def _resampler(rngs):
    config = tiny.CONFIG.resampler
    return PerceiverResampler(config, tiny.VISION_WIDTH, Execution(), rngs=rngs)


def test_init_fills_the_abstract_tree_and_only_what_is_kept():
    _, shapes, _ = params_lib.abstract(_resampler)
    drawn = params_lib.init(_resampler, seed=0)
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(lambda s: s.shape, shapes)
    kept = params_lib.init(_resampler, seed=0, keep=lambda path: path[0] == "latents")
    assert list(kept) == ["latents"]
    np.testing.assert_array_equal(kept["latents"], drawn["latents"])
    other = params_lib.init(_resampler, seed=1, keep=lambda path: path[0] == "latents")
    assert not np.allclose(other["latents"], drawn["latents"])


def test_axes_have_a_name_for_every_dim_behind_the_layer_axes():
    _, shapes, axes = tiny.abstract()
    flat_axes = traverse_util.flatten_dict(axes)
    for path, leaf in traverse_util.flatten_dict(shapes).items():
        assert len(flat_axes[path]) == len(leaf.shape), path
    path = (
        "language_model",
        "blocks",
        "groups",
        "layers",
        "layers",
        "attention",
        "query",
        "kernel",
    )
    assert flat_axes[path] == (None, None, "embed", "heads", None)


def test_count():
    _, shapes, _ = params_lib.abstract(lambda rngs: Flamingo(tiny.CONFIG, rngs=rngs))
    leaves = traverse_util.flatten_dict(shapes).values()
    assert params_lib.count(shapes) == sum(int(np.prod(leaf.shape)) for leaf in leaves)
