"""NFNet: sizes, the variance it promises to keep, and timm's numbers from timm's weights."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flamingo_jax.core import params
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution, unroll
from flamingo_jax.models import nfnet
from flamingo_jax.models.nfnet import ALPHA, GAMMA, NFNet, WSConv
from flamingo_jax.weights.encoders.nfnet import from_timm
from tests.torch_reference import import_torch


@functools.cache
def compiled(variant, **options):
    graph, _, _ = params.abstract(lambda rngs: NFNet(variant, rngs=rngs, **options))
    return jax.jit(lambda p, x, key: nnx.merge(graph, p)(x, key))


def apply(tree, images, variant="thin", key=None, **options):
    return compiled(variant, **options)(tree, images, key)


@pytest.fixture(scope="module")
def fresh():
    """As a module starts, but drawn by numpy: compiling JAX's draws takes half a minute."""
    _, shapes, _ = params.abstract(lambda rngs: NFNet("thin", rngs=rngs))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return (rng.normal(size=leaf.shape) / math.sqrt(leaf.shape[-2])).astype(np.float32)
        return np.full(leaf.shape, path[-1].key == "gain", np.float32)

    return jax.tree.map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def thin(fresh):
    """Random gains, biases and skip gains: at init every residual branch is silent."""
    rng = np.random.default_rng(1)
    return jax.tree.map_with_path(
        lambda path, a: (
            a
            + np.float32(0.3 * (path[-1].key != "kernel"))
            * rng.normal(size=a.shape).astype(np.float32)
        ),
        fresh,
    )


def with_skip_gain(tree, value):
    return jax.tree.map_with_path(
        lambda path, a: jnp.full_like(a, value) if path[-1].key == "skip_gain" else a, tree
    )


@pytest.fixture(scope="module")
def images():
    return pictures(2, 64, 64)


def pictures(*shape, seed=1):
    return jnp.array(np.random.default_rng(seed).normal(size=(*shape, 3)), jnp.float32)


# Brock et al. 2021, with the 1000-way classifier: 71.5, 132.6, 193.8, ..., of which it is 3.073 M.
@pytest.mark.parametrize(
    ("variant", "millions"),
    [
        ("f0", 68.4),
        ("f1", 129.6),
        ("f2", 190.7),
        ("f3", 251.9),
        ("f4", 313.0),
        ("f5", 374.1),
        ("f6", 435.3),
        ("f7", 496.4),
    ],
)
def test_parameter_count(variant, millions):
    _, shapes, _ = params.abstract(lambda rngs: NFNet(variant, rngs=rngs))
    assert params.count(shapes) / 1e6 == pytest.approx(millions, rel=1e-3)


def test_f6_at_the_papers_size_gives_a_grid_of_100():
    graph, shapes, _ = params.abstract(lambda rngs: NFNet("f6", rngs=rngs))
    images = jax.ShapeDtypeStruct((2, 320, 320, 3), jnp.bfloat16)
    out = jax.eval_shape(lambda p, x: nnx.merge(graph, p)(x), shapes, images)
    assert (out.shape, out.dtype) == ((2, 100, 3072), jnp.bfloat16)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 64), (70, 100)])
def test_any_size_gives_its_grid(thin, height, width):
    grid = math.ceil(height / 32) * math.ceil(width / 32)
    out = jax.eval_shape(compiled("thin"), thin, pictures(1, height, width), None)
    assert out.shape == (1, grid, 192)


def test_num_features_is_the_grid():
    net = nnx.eval_shape(lambda: NFNet("thin", rngs=Rngs(0)))
    assert [net.num_features(px) for px in (288, 320, 321, 480)] == [81, 100, 121, 225]
    assert net.width == 192


def test_features_are_flattened_row_by_row(thin, images):
    """A picture that changes in its lower left corner moves the third of 2 x 2 features most."""
    moved = apply(thin, images.at[:, 48:, :16].add(2.0)) - apply(thin, images)
    assert (np.abs(moved).mean(-1).argmax(-1) == 2).all()


def test_betas_by_hand():
    variances = [[1.0], [1.04, 1.04], [1.08, 1.04, 1.08, 1.12, 1.16, 1.2], [1.24, 1.04, 1.08]]
    for have, want in zip(nfnet.betas((1, 2, 6, 3)), variances, strict=True):
        np.testing.assert_allclose(have, np.array(want) ** -0.5)


def test_stochastic_depth_rates_by_hand():
    np.testing.assert_allclose(nfnet.stochdepth_rates(0.25, 5), [0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize("activation", sorted(GAMMA))
def test_gamma_keeps_unit_variance(activation):
    x = jax.random.normal(jax.random.key(0), (1_000_000,))
    assert nfnet.scaled_activation(activation)(x).std() == pytest.approx(1, abs=3e-3)


@pytest.mark.parametrize("std_conv_eps", [None, 1e-5])
def test_standardized_kernels_have_zero_mean_and_the_gains_norm(std_conv_eps):
    kernel = 3 + jax.random.normal(jax.random.key(0), (3, 3, 64, 5))
    gain = jnp.array([1.0, 2.0, 0.5, 0.0, -1.0])
    out = nfnet.standardize(kernel, gain, std_conv_eps)
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-7)
    np.testing.assert_allclose(jnp.square(out).sum((0, 1, 2)), jnp.square(gain), rtol=1e-4)


def test_constant_kernel_is_zero_not_nan():
    assert (nfnet.standardize(jnp.full((1, 1, 4, 2), 7.0), jnp.ones(2)) == 0).all()


def test_variance_floor_by_hand():
    """Two weights of +-1e-3: variance * fan_in is 2e-6, under the floor of 1e-4, so times 100."""
    kernel = jnp.array([1e-3, -1e-3]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(nfnet.standardize(kernel, jnp.ones(1)), kernel * 100, rtol=1e-5)
    timm = nfnet.standardize(kernel, jnp.ones(1), 1e-5)
    np.testing.assert_allclose(timm, kernel / math.sqrt(2 * (1e-6 + 1e-5)), rtol=1e-5)


def test_bfloat16_kernels_are_standardized_in_float32():
    kernel = (100 + jax.random.normal(jax.random.key(0), (1, 1, 512, 1))).astype(jnp.bfloat16)
    out = nfnet.standardize(kernel, jnp.ones(1, jnp.bfloat16))
    assert out.dtype == jnp.float32
    exact = np.asarray(kernel, np.float64)
    exact = (exact - exact.mean()) / exact.std() / math.sqrt(512)
    np.testing.assert_allclose(out, exact, atol=1e-6)


def test_grouped_convolution_reads_its_group_only():
    @jax.jit
    def difference(x):
        conv = WSConv(8, 8, 3, groups=2, rngs=Rngs(0))
        return conv(x.at[..., 1].add(1.0)) - conv(x)

    moved = np.abs(difference(jnp.ones((1, 4, 4, 8)))).max((0, 1, 2))
    assert (moved[:4] > 0).all()
    assert (moved[4:] == 0).all()


def test_average_pool_leaves_padding_out_of_the_count():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    np.testing.assert_array_equal(nfnet.average_pool(x)[0, ..., 0], [[2.0, 3.5], [6.5, 8.0]])


BLOCK = {"group_width": 16, "activation": "gelu_tanh", "std_conv_eps": None}


def test_variance_grows_by_alpha_squared_a_block():
    """What weight standardisation, alpha, beta and gamma are for (Brock et al. 2021, section 2)."""
    depth, shape = 8, (4, 16, 16, 64)

    @jax.jit
    def growth():
        rngs = Rngs(0)
        stage = nfnet.Stage(64, 64, depth, stride=1, execution=Execution(), rngs=rngs, **BLOCK)
        stage.first.skip_gain[...] += 1
        stage.rest.layers.skip_gain[...] += 1
        x = jax.random.normal(jax.random.key(1), shape)
        return stage(x, jnp.array(nfnet.betas((depth,))[0]), None).var() - x.var()

    assert float(growth()) == pytest.approx(depth * ALPHA**2, rel=0.2)


def test_residual_branch_is_silent_at_init_and_scaled_by_its_gain():
    @jax.jit
    def branches():
        block = nfnet.Block(32, 32, rngs=Rngs(0), **BLOCK)
        x = jax.random.normal(jax.random.key(1), (1, 4, 4, 32))
        out = []
        for _ in range(3):
            out.append(block(x, jnp.float32(1)) - x)
            block.skip_gain[...] += 1
        return out

    none, once, twice = branches()
    assert (none == 0).all()
    assert float(once.std()) > 0.05
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-3, atol=1e-5)


def test_scanned_equals_unrolled(thin, images):
    unrolled = apply(unroll(thin), images, execution=Execution(scan=False))
    np.testing.assert_allclose(apply(thin, images), unrolled, rtol=1e-4, atol=1e-5)


def test_every_parameter_of_a_stage_is_trained():
    """For contrastive pretraining, rematerialised; in Flamingo itself the encoder is frozen."""
    execution, betas = Execution(remat="full"), jnp.ones(3)

    def make(rngs):
        return nfnet.Stage(32, 64, 3, stride=2, execution=execution, rngs=rngs, **BLOCK)

    graph, shapes, _ = params.abstract(make)
    rng = np.random.default_rng(0)
    tree = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), shapes)
    x = rng.normal(size=(2, 5, 5, 32)).astype(np.float32)
    gradients = jax.jit(jax.grad(lambda p: jnp.square(nnx.merge(graph, p)(x, betas, None)).mean()))(
        tree
    )
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_bfloat16_stays_bfloat16_and_close(thin, images):
    full = apply(thin, images)
    half = apply(jax.tree.map(lambda a: a.astype(jnp.bfloat16), thin), images.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert float(jnp.abs(half - full).mean() / jnp.abs(full).mean()) < 0.03


def test_stochastic_depth_drops_whole_branches_a_picture(thin):
    images = pictures(1, 32, 32).repeat(32, 0)  # the same picture: only the draws differ
    options = {"stochdepth_rate": 0.9}
    dropped = apply(thin, images, key=jax.random.key(0), **options)
    kinds = {row.tobytes() for row in np.asarray(dropped)}
    assert 4 < len(kinds) <= 2**5  # of 6 blocks the first is never dropped
    other = apply(thin, images, key=jax.random.key(1), **options)
    assert (other != dropped).any()


def test_all_branches_dropped_is_a_network_without_branches(thin, images, monkeypatch):
    monkeypatch.setattr(nfnet, "stochdepth_rates", lambda rate, n: jnp.ones(n))
    dropped = apply(thin, images, key=jax.random.key(0))
    assert (dropped != apply(thin, images)).any()
    silent = apply(with_skip_gain(thin, 0.0), images)
    np.testing.assert_allclose(dropped, silent, rtol=1e-5, atol=1e-6)


def test_channels_are_the_only_sharded_dimension():
    _, shapes, axes = params.abstract(lambda rngs: NFNet("thin", rngs=rngs))
    names = jax.tree.leaves(axes, is_leaf=lambda a: isinstance(a, tuple))
    for shape, axis in zip(jax.tree.leaves(shapes), names, strict=True):
        assert len(axis) == len(shape.shape)
        assert set(axis[:-1]) <= {None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "f8"}, r"'f8': use one of .*'f7', 'thin'"),
        ({"variant": "f0", "activation": "squared_relu"}, "'squared_relu': use one of"),
    ],
)
def test_unknown_choice_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        NFNet(**options, rngs=Rngs(0))


def test_pictures_of_another_rank_are_refused(thin):
    with pytest.raises(ValueError, match=r"\[64, 64, 3\], want \[N, height, width, 3\]"):
        apply(thin, pictures(64, 64))


def timm_model(torch, variant):
    """timm's model of our variant with random weights, and no gain or bias left at its start."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    v = nfnet.VARIANTS[variant]
    torch.manual_seed(0)
    model = timm.create_model(
        "dm_nfnet_f0",
        depths=v.depths,
        channels=v.widths,
        stem_chs=v.widths[0] // 2,
        group_size=v.group_width,
        num_features=2 * v.widths[-1],
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("weight"):
                parameter.add_(torch.randn(parameter.shape) * 0.3)
            if name.endswith("skipinit_gain"):
                parameter.add_(1)
    return model


@pytest.mark.reference
@pytest.mark.parametrize(
    ("variant", "sizes_px"), [("thin", [50, 64]), ("f0", [192, 320]), ("f1", [192, 320])]
)
def test_agrees_with_timm(variant, sizes_px):
    torch = import_torch()
    model = timm_model(torch, variant)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    ours = from_timm(state, variant)
    for size_px in sizes_px:
        images = np.array(pictures(2, size_px, size_px))
        with torch.no_grad():
            want = model.forward_features(torch.tensor(images.transpose(0, 3, 1, 2)))
        want = want.flatten(2).transpose(1, 2).numpy()
        have = apply(ours, images, variant, activation="gelu", std_conv_eps=1e-5)
        difference = np.abs(have - want).max() / np.abs(want).max()
        print(f"NFNet {variant} {size_px} px, largest relative difference: {difference:.1e}")
        assert difference < 1e-4
        assert want.std() > 0.1
