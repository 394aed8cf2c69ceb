"""EfficientNet-Lite's parts against hand-worked cases and XLA's own convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flamingo_jax.core.rngs import Rngs
from flamingo_jax.models import efficientnet_lite as net


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "want"),
    [
        (224, 3, 1, (224, (1, 1))),
        (224, 3, 2, (112, (0, 1))),  # TensorFlow's: nothing on the left
        (112, 5, 2, (56, (1, 2))),
        (7, 3, 2, (4, (1, 1))),
        (7, 5, 1, (7, (2, 2))),
    ],
)
def test_same_padding(side, kernel, stride, want):
    assert net.same_padding(side, kernel, stride) == want


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10)])
def test_depthwise_equals_a_grouped_convolution(stride, size, height, width):
    layer = net.Depthwise(size, 6, stride=stride, rngs=Rngs(0), dtype=jnp.float32)
    layer.bias[...] = jnp.arange(6.0)
    x = jax.random.normal(jax.random.key(1), (2, height, width, 6))
    want = jax.lax.conv_general_dilated(
        x,
        layer.kernel[...][:, :, None],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=6,
    ) + jnp.arange(6.0)
    np.testing.assert_allclose(jax.jit(layer)(x), want, atol=1e-5)


def test_blocks_of_lite0_are_the_published_ones():
    blocks = net.blocks("lite0")
    assert len(blocks) == 16
    assert blocks[0] == net.Block(1, 3, 1, 32, 16)
    assert blocks[1] == net.Block(6, 3, 2, 16, 24)
    assert blocks[-1] == net.Block(6, 3, 1, 192, 320)
    assert [b.out_channels for b in net.blocks("lite2")][-1] == 352  # 320 times 1.1
    with pytest.raises(ValueError, match="lite0"):
        net.blocks("lite9")


@pytest.fixture(scope="module")
def encoder():
    """Graph and parameters of a random Lite0; filled by numpy, as 98 draws compile for 15 s."""
    graph, params = nnx.split(nnx.eval_shape(lambda: net.EfficientNetLite("lite0", rngs=Rngs(0))))
    rng = np.random.default_rng(0)
    fill = lambda x: jnp.asarray(rng.normal(size=x.shape) / np.sqrt(x.size / x.shape[-1]), x.dtype)  # noqa: E731
    return graph, jax.tree.map(fill, params)


def test_random_parameters_are_reproducible_and_alive():
    make = lambda seed: net.Depthwise(3, 8, stride=1, rngs=Rngs(seed), dtype=jnp.float32)  # noqa: E731
    a, b, c = (make(seed).kernel[...] for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert jnp.abs(a - c).min() > 0


def test_features_of_any_size_and_dtype(encoder):
    graph, params = encoder
    for shape, p in (((2, 64, 64, 3), 4), ((1, 65, 96, 3), 9)):
        out = jax.eval_shape(lambda x: nnx.merge(graph, params)(x), jnp.zeros(shape))
        assert out.shape == (shape[0], p, 1280)
    assert net.num_features(224) == 49
    half = jax.eval_shape(
        lambda x: nnx.merge(graph, params)(x), jnp.zeros((1, 64, 64, 3), jnp.bfloat16)
    )
    assert half.dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="want"):
        nnx.merge(graph, params)(jnp.zeros((64, 64, 3)))


def test_a_feature_stands_where_its_pixels_do(encoder):
    """Changing the bottom right corner leaves the top left feature; in rows, so P-1 is there."""
    graph, params = encoder
    forward = jax.jit(lambda x: nnx.merge(graph, params)(x))
    x = jax.random.normal(jax.random.key(2), (1, 512, 32, 3))
    y = x.at[:, -8:].add(1.0)
    change = jnp.abs(forward(x) - forward(y)).max(axis=(0, 2))
    assert change[0] == 0
    assert change[-1] > 0


def test_every_parameter_names_its_axes(encoder):
    _, params = encoder
    leaves = nnx.to_flat_state(params)
    assert len(leaves) == 2 * (1 + 3 * 16 - 1 + 1)  # kernel, bias; block_00 does not expand
    for path, leaf in leaves:
        assert len(leaf.logical_axes) == leaf[...].ndim, path
        assert leaf.logical_axes[-1] == "vision_channels"
        assert all(isinstance(part, str) for part in path)
