"""Folding batch norm, the name map, and the published weights against timm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from flamingo_jax.core.rngs import Rngs
from flamingo_jax.models import efficientnet_lite as net
from flamingo_jax.weights.encoders import efficientnet_lite
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files.torch_checkpoint import load_state_dict
from tests import parts
from tests.torch_reference import import_torch


def _abstract(variant: str):
    return nnx.split(nnx.eval_shape(lambda: net.EfficientNetLite(variant, rngs=Rngs(0))))


def _random_state_dict(variant: str) -> dict[str, np.ndarray]:
    """A torch state dict with published names, written from the list of blocks."""
    rng = np.random.default_rng(0)
    state = {}

    def add(conv, norm, out, inner, size):
        state[f"{conv}.weight"] = rng.normal(size=(out, inner, size, size)).astype(np.float32)
        for name in ("weight", "bias", "running_mean"):
            state[f"{norm}.{name}"] = rng.normal(size=out).astype(np.float32)
        state[f"{norm}.running_var"] = rng.uniform(0.5, 2, out).astype(np.float32)
        state[f"{norm}.num_batches_tracked"] = np.array(7)

    add("_conv_stem", "_bn0", 32, 3, 3)
    for i, (expand, size, _, inner, out) in enumerate(net.blocks(variant)):
        name = f"_blocks.{i}"
        if expand > 1:
            add(f"{name}._expand_conv", f"{name}._bn0", inner * expand, inner, 1)
        add(f"{name}._depthwise_conv", f"{name}._bn1", inner * expand, 1, size)
        add(f"{name}._project_conv", f"{name}._bn2", out, inner * expand, 1)
    add("_conv_head", "_bn1", 1280, net.blocks(variant)[-1].out_channels, 1)
    return state | {"_fc.weight": np.zeros((10, 1280)), "_fc.bias": np.zeros(10)}


def test_every_path_and_shape_is_the_modules():
    params = efficientnet_lite.convert(_random_state_dict("lite1"), "lite1")
    _, abstract = _abstract("lite1")
    want = traverse_util.flatten_dict(nnx.to_pure_dict(abstract), sep="/")
    assert {k: v.shape for k, v in params.items()} == {k: v.shape for k, v in want.items()}
    assert {v.dtype for v in params.values()} == {np.dtype(np.float32)}


def test_folding_equals_convolution_then_batch_norm():
    state = _random_state_dict("lite0")
    params = efficientnet_lite.convert(state, "lite0")
    x = np.random.default_rng(1).normal(size=(5, 16))
    y = x @ state["_blocks.1._expand_conv.weight"][:, :, 0, 0].T.astype(np.float64)
    norm = {k: state[f"_blocks.1._bn0.{k}"].astype(np.float64) for k in ("weight", "bias")}
    mean, var = state["_blocks.1._bn0.running_mean"], state["_blocks.1._bn0.running_var"]
    want = (y - mean) / np.sqrt(var.astype(np.float64) + 1e-3) * norm["weight"] + norm["bias"]
    got = x @ params["block_01/expand/kernel"] + params["block_01/expand/bias"]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_what_does_not_fit_is_named():
    state = _random_state_dict("lite0")
    with pytest.raises(BadWeightsFile, match=r"_blocks\.3"):
        efficientnet_lite.convert(state, "lite1")  # deeper from its second stage on
    with pytest.raises(BadWeightsFile, match=r"lack '_bn0\.running_var'"):
        efficientnet_lite.convert(
            {k: v for k, v in state.items() if "_bn0.r" not in k}
            | {"_bn0.running_mean": state["_bn0.running_mean"]},
            "lite0",
        )
    with pytest.raises(BadWeightsFile, match="surprise"):
        efficientnet_lite.convert(state | {"surprise": np.zeros(1)}, "lite0")


@pytest.mark.reference
def test_features_of_lite0_against_timm():
    torch = import_torch()
    timm = pytest.importorskip("timm", reason="timm is not installed")
    state = load_state_dict(parts.find(parts.EFFICIENTNET_LITE0))
    graph, _ = _abstract("lite0")
    params = traverse_util.unflatten_dict(efficientnet_lite.convert(state, "lite0"), sep="/")
    images = np.random.default_rng(0).uniform(-1, 1, (2, 224, 224, 3)).astype(np.float32)
    got = jax.jit(lambda p, x: nnx.merge(graph, p)(x))(nnx.State(params), jnp.asarray(images))

    reference = timm.create_model("tf_efficientnet_lite0").eval()
    tensors = [torch.from_numpy(np.array(array)) for array in state.values()]
    names = reference.state_dict()
    reference.load_state_dict(dict(zip(names, tensors, strict=True)))  # same order, other names
    with torch.no_grad():
        want = reference.forward_features(torch.from_numpy(images).permute(0, 3, 1, 2))
    want = want.permute(0, 2, 3, 1).reshape(2, 49, 1280).numpy()
    assert want.max() > 1
    assert np.abs(np.asarray(got) - want).max() < 1e-3


@pytest.mark.reference
@pytest.mark.parametrize("variant", [v for v in net.VARIANTS if v != "thin"])  # thin is ours alone
def test_shapes_of_every_variant_against_timm(variant):
    import_torch()
    timm = pytest.importorskip("timm", reason="timm is not installed")
    theirs = timm.create_model(f"tf_efficientnet_{variant}").state_dict()
    ours = _random_state_dict(variant)
    shapes = [tuple(v.shape) for k, v in theirs.items() if not k.startswith("classifier")]
    assert [v.shape for k, v in ours.items() if not k.startswith("_fc")] == shapes
