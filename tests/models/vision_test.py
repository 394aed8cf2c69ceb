"""The encoders behind one interface: shapes, preprocessing, and configs that do not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flamingo_jax.config import ImagePreprocessing, VisionConfig
from flamingo_jax.core import params, partition
from flamingo_jax.core.stack import Execution, unroll
from flamingo_jax.models import vision
from flamingo_jax.models.nfnet import NFNet
from flamingo_jax.models.vision import VisionEncoder
from flamingo_jax.models.vit import ViT

NFNET = VisionConfig("nfnet", "thin", 4, 192, ImagePreprocessing(size_px=64))
VIT = VisionConfig(
    "vit", "thin", 17, 32, ImagePreprocessing(size_px=32), keep_class_token=True, post_norm=True
)


@pytest.mark.parametrize(
    ("kind", "variant", "size_px", "want"),
    [
        ("nfnet", "f6", 320, (100, 3072)),  # the paper, training and evaluation
        ("nfnet", "f6", 480, (225, 3072)),  # the paper, fine-tuning
        ("nfnet", "f0", 288, (81, 3072)),
        ("vit", "vit_l_14", 224, (256, 1024)),
        ("vit", "vit_h_14", 224, (256, 1280)),
        ("efficientnet_lite", "lite0", 224, (49, 1280)),
    ],
)
def test_output_shapes_of_the_published_encoders(kind, variant, size_px, want):
    config = VisionConfig(kind, variant, *want, ImagePreprocessing(size_px=size_px))
    assert vision.output_shape(config) == want
    assert vision.check(config) is config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "f9"}, r"^vision.variant='f9': of nfnet use one of \['f0', 'f1'"),
        (
            {"num_features": 5},
            r"^vision.num_features=5: nfnet thin makes 4 at .*size_px=64, so use 4",
        ),
        ({"width": 3072}, r"^vision.width=3072: nfnet thin makes 192 at"),
        (
            {"post_norm": True},
            "^vision.post_norm=True: nfnet has no such option, leave it at False",
        ),
        ({"kind": "vit", "std_conv_eps": 1e-5}, "vision.std_conv_eps=1e-05: vit has no such"),
        (
            {"activation": "quick_gelu"},
            r"activation='quick_gelu': use one of \['gelu', 'gelu_tanh'",
        ),
        ({"kind": "vit", "preprocessing": ImagePreprocessing(size_px=30)}, "multiple of 8"),
    ],
)
def test_a_config_that_does_not_fit_names_the_field_and_what_would(changes, message):
    with pytest.raises(ValueError, match=message):
        vision.check(dataclasses.replace(NFNET, **changes))


@pytest.mark.parametrize(
    ("config", "bare"),
    [
        (NFNET, lambda rngs: NFNet("thin", rngs=rngs)),
        (VIT, lambda rngs: ViT("thin", keep_class_token=True, post_norm=True, rngs=rngs)),
    ],
    ids=["nfnet", "vit"],
)
def test_frames_pass_the_bare_network_one_by_one_normalised(config, bare):
    graph, shapes, _ = params.abstract(lambda rngs: VisionEncoder(config, rngs=rngs))
    rng = np.random.default_rng(0)
    tree = jax.tree.map(lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape), jnp.float32), shapes)
    size = config.preprocessing.size_px
    pixels = rng.integers(0, 256, (2, 1, 3, size, size, 3), np.uint8)
    found = jax.jit(lambda t, x: nnx.merge(graph, t)(x))(tree, pixels)
    assert found.shape == (2, 1, 3, config.num_features, config.width)
    net = nnx.merge(params.abstract(bare)[0], tree["encoder"])
    frame = pixels[1, 0, 2] / 255.0
    frame = (frame - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    want = jax.jit(lambda x: net(x))(jnp.asarray(frame[None], jnp.float32))[0]
    np.testing.assert_allclose(found[1, 0, 2], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [NFNET, VIT], ids=["nfnet", "vit"])
def test_every_parameter_is_whole_on_every_device(config):
    """The thin widths divide by none of these axes, and that is no error."""
    _, shapes, axes = params.abstract(lambda rngs: VisionEncoder(config, rngs=rngs))
    mesh = jax.sharding.AbstractMesh((1, 1, 5, 7), partition.MESH_AXES)
    where = partition.shardings(axes, shapes, mesh)
    assert all(sharding.is_fully_replicated for sharding in jax.tree.leaves(where))


@pytest.mark.parametrize("config", [NFNET, VIT], ids=["nfnet", "vit"])
def test_a_whole_tree_unrolls_with_its_encoder(config):
    """As train.py does where the recipe turns the scan off."""
    make = lambda scan: lambda rngs: VisionEncoder(config, Execution(scan=scan), rngs=rngs)  # noqa: E731
    _, scanned, _ = params.abstract(make(True))
    _, unrolled, _ = params.abstract(make(False))
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), scanned)
    found = jax.tree.map(np.shape, unroll(zeros))
    assert found == jax.tree.map(lambda s: s.shape, unrolled)
