"""NFNets of timm under DeepMind's names: both importers, and timm's own numbers.

The names are those that DeepMind's published code (deepmind-research, nfnets) gives to its modules.
"""

import pickle

import jax
import numpy as np
import pytest
from flax import nnx

from flamingo_jax.core import params
from flamingo_jax.models.nfnet import VARIANTS, NFNet
from flamingo_jax.weights.encoders import nfnet
from flamingo_jax.weights.files.numpy_pickle import load_tree
from tests.models.nfnet_test import timm_model
from tests.torch_reference import import_torch

CONVOLUTIONS = {"conv1": "conv0", "conv2": "conv1", "conv2b": "conv1b", "conv3": "conv2"}


def as_deepmind_has_it(state, depths):
    """Haiku's tree of a timm state dict; modules in the order that Haiku gives them, by name."""
    tree = {}

    def convolution(theirs, module):
        tree[f"NFNet/~/{module}"] = {
            "bias": state.pop(f"{theirs}.bias"),
            "gain": state.pop(f"{theirs}.gain").reshape(-1),
            "w": state.pop(f"{theirs}.weight").transpose(2, 3, 1, 0),
        }

    def linear(theirs, module):
        kernel = state.pop(f"{theirs}.weight")
        kernel = kernel.reshape(kernel.shape[:2]).T
        tree[f"NFNet/~/{module}"] = {"b": state.pop(f"{theirs}.bias"), "w": kernel}

    for i in range(4):
        convolution(f"stem.conv{i + 1}", f"stem_conv{i}")
    places = [(stage, i) for stage, depth in enumerate(depths) for i in range(depth)]
    for n, (stage, i) in enumerate(places):
        theirs, block = f"stages.{stage}.{i}", f"nf_block_{n}" if n else "nf_block"
        tree[f"NFNet/~/{block}"] = {"skip_gain": state.pop(f"{theirs}.skipinit_gain")}
        for name, ours in CONVOLUTIONS.items():
            convolution(f"{theirs}.{name}", f"{block}/~/{ours}")
        if i == 0:
            convolution(f"{theirs}.downsample.conv", f"{block}/~/conv_shortcut")
        linear(f"{theirs}.attn_last.fc1", f"{block}/~/squeeze_excite/~/linear")
        linear(f"{theirs}.attn_last.fc2", f"{block}/~/squeeze_excite/~/linear_1")
    convolution("final_conv", "final_conv")
    linear("head.fc", "linear")
    assert not state
    return dict(sorted(tree.items()))


@pytest.mark.reference
def test_timms_weights_under_deepminds_names_are_timms_network(tmp_path):
    torch = import_torch()
    model = timm_model(torch, "thin")
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    path = tmp_path / "thin_haiku.npz"
    depths = VARIANTS["thin"].depths
    path.write_bytes(pickle.dumps(as_deepmind_has_it(dict(state), depths), 3))
    tree = load_tree(path)
    assert nfnet.variant(nfnet.flattened(tree), nfnet.HAIKU) == "thin"
    ours = nfnet.from_haiku(tree, "thin")
    jax.tree.map(np.testing.assert_array_equal, ours, nfnet.from_timm(state, "thin"))
    images = np.random.default_rng(0).normal(size=(2, 96, 64, 3)).astype(np.float32)
    with torch.no_grad():
        want = model.forward_features(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    want = want.transpose(0, 2, 3, 1).reshape(2, 6, -1)
    options = {"activation": "gelu", "std_conv_eps": 1e-5}  # timm's numerics
    graph, _, _ = params.abstract(lambda rngs: NFNet("thin", rngs=rngs, **options))
    found = jax.jit(lambda p, x: nnx.merge(graph, p)(x))(ours, images)
    print(f"largest difference {np.abs(found - want).max():.1e} of {np.abs(want).max():.2f}")
    np.testing.assert_allclose(found, want, atol=1e-4 * np.abs(want).max())
