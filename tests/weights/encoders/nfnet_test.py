"""NFNet weights under DeepMind's and timm's names; numbers against timm are in tests/models."""

import jax
import numpy as np
import pytest

from flamingo_jax.core import params
from flamingo_jax.models.nfnet import NFNet
from flamingo_jax.weights.encoders.nfnet import from_haiku, from_timm
from flamingo_jax.weights.errors import BadWeightsFile

# Blocks of the variant "thin": number in all, stage and place, inputs, width.
BLOCKS = [
    (0, 0, 0, 16, 32),
    (1, 1, 0, 32, 64),
    (2, 1, 1, 64, 64),
    (3, 1, 2, 64, 64),
    (4, 2, 0, 64, 96),
    (5, 3, 0, 96, 96),
]


def haiku_tree():
    """The names in DeepMind's files, with random numbers and the sizes of "thin"."""
    rng = np.random.default_rng(0)

    def array(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def conv(size, inputs, outputs):
        return {
            "w": array(size, size, inputs, outputs),
            "gain": array(outputs),
            "bias": array(outputs),
        }

    tree = {
        "NFNet/~/final_conv": conv(1, 96, 192),
        "NFNet/~/linear": {"w": array(192, 10), "b": array(10)},
    }
    for i, (inputs, outputs) in enumerate([(3, 2), (2, 4), (4, 8), (8, 16)]):
        tree[f"NFNet/~/stem_conv{i}"] = conv(3, inputs, outputs)
    for n, _, place, inputs, width in BLOCKS:
        name = "NFNet/~/nf_block" + (f"_{n}" if n else "")
        middle = width // 2
        tree[name] = {"skip_gain": array()}
        tree[f"{name}/~/conv0"] = conv(1, inputs, middle)
        tree[f"{name}/~/conv1"] = conv(3, 16, middle)
        tree[f"{name}/~/conv1b"] = conv(3, 16, middle)
        tree[f"{name}/~/conv2"] = conv(1, middle, width)
        if place == 0:
            tree[f"{name}/~/conv_shortcut"] = conv(1, inputs, width)
        for linear, sizes in (("linear", (width, middle)), ("linear_1", (middle, width))):
            module = f"{name}/~/squeeze_excite/~/{linear}"
            tree[module] = {"w": array(*sizes), "b": array(sizes[1])}
    return tree


def timm_state(tree):
    """The same numbers as timm keeps them, by the rules of its own converter."""
    modules = {"NFNet/~/final_conv": "final_conv", "NFNet/~/linear": "head.fc"}
    modules |= {f"NFNet/~/stem_conv{i}": f"stem.conv{i + 1}" for i in range(4)}
    for n, stage, place, _, _ in BLOCKS:
        ours, theirs = "NFNet/~/nf_block" + (f"_{n}" if n else ""), f"stages.{stage}.{place}"
        modules[ours] = theirs
        for haiku, timm in {
            "conv0": "conv1",
            "conv1": "conv2",
            "conv1b": "conv2b",
            "conv2": "conv3",
            "conv_shortcut": "downsample.conv",
            "squeeze_excite/~/linear": "attn_last.fc1",
            "squeeze_excite/~/linear_1": "attn_last.fc2",
        }.items():
            modules[f"{ours}/~/{haiku}"] = f"{theirs}.{timm}"
    state = {}
    for module, row in tree.items():
        for name, a in row.items():
            if name == "w" and a.ndim == 4:
                a = np.einsum("hwio->oihw", a)
            elif name == "w":
                a = a.T if module == "NFNet/~/linear" else a.T[:, :, None, None]
            elif name == "gain":
                a = a[:, None, None, None]
            leaf = {"w": "weight", "b": "bias", "skip_gain": "skipinit_gain"}.get(name, name)
            state[f"{modules[module]}.{leaf}"] = a
    return state


def assert_equal_trees(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_both_publishers_give_one_tree_of_the_modules_shapes():
    tree = haiku_tree()
    ours = from_haiku(tree, "thin")
    assert_equal_trees(ours, from_timm(timm_state(tree), "thin"))
    _, shapes, _ = params.abstract(lambda rngs: NFNet("thin", rngs=rngs))
    assert jax.tree.map(np.shape, ours) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(ours))


def test_blocks_of_a_stage_are_stacked_in_their_order():
    tree = haiku_tree()
    stage = from_haiku(tree, "thin")["stage_1"]
    for layer, n in enumerate((2, 3)):
        have = stage["rest"]["layers"]["conv1b"]["kernel"][layer]
        np.testing.assert_array_equal(have, tree[f"NFNet/~/nf_block_{n}/~/conv1b"]["w"])
    first = tree["NFNet/~/nf_block_1/~/conv_shortcut"]["gain"]
    np.testing.assert_array_equal(stage["first"]["conv_shortcut"]["gain"], first)


def test_everything_wrong_is_said_at_once():
    state = timm_state(haiku_tree())
    del state["stages.1.2.conv2b.gain"]
    state["stages.1.3.skipinit_gain"] = np.zeros(())
    state["final_conv.weight"] = np.zeros((200, 96, 1, 1), np.float32)
    with pytest.raises(BadWeightsFile) as error:
        from_timm(state, "thin")
    message = str(error.value)
    assert "NFNet thin: missing stages.1.2.conv2b.gain;" in message
    assert "unexpected stages.1.3.skipinit_gain;" in message
    assert (
        "final_conv.weight for final_conv/kernel ([1, 1, 96, 200], want [1, 1, 96, 192])" in message
    )
    assert "\n" not in message


def test_the_file_of_another_variant_is_refused_in_a_short_line():
    with pytest.raises(
        BadWeightsFile, match=r"missing .* and \d+ more; .*of another shape"
    ) as error:
        from_haiku(haiku_tree(), "f0")
    assert len(str(error.value)) < 1500


def test_a_classifier_may_be_absent():
    tree = haiku_tree()
    whole = from_haiku(tree, "thin")
    del tree["NFNet/~/linear"]
    assert_equal_trees(whole, from_haiku(tree, "thin"))
