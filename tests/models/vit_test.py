"""The CLIP image tower: sizes, token order, and two references' numbers from their weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flamingo_jax.core import params
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution, unroll
from flamingo_jax.models import vit
from flamingo_jax.models.vit import ViT
from flamingo_jax.weights.encoders.clip import parameters
from tests.torch_reference import import_torch

from_huggingface = functools.partial(parameters, format="hf_clip", prefix="vision_model.")


@functools.cache
def compiled(**options):
    graph, _, _ = params.abstract(lambda rngs: ViT("thin", rngs=rngs, **options))
    return jax.jit(lambda p, x: nnx.merge(graph, p)(x))


def apply(tree, images, **options):
    return compiled(**options)(tree, images)


@pytest.fixture(scope="module")
def thin():
    return jax.jit(lambda: params.init(lambda rngs: ViT("thin", post_norm=True, rngs=rngs), 0))()


def without_post_norm(tree):
    return {name: leaf for name, leaf in tree.items() if name != "post_norm"}


@pytest.fixture(scope="module")
def images():
    return jnp.array(np.random.default_rng(1).normal(size=(2, 32, 32, 3)), jnp.float32)


# The towers of OpenAI, LAION and open_clip have these counts with their projection (width x joint
# dim) added.
@pytest.mark.parametrize(
    ("variant", "with_projection", "joint_dim"),
    [
        ("vit_b_32", 87_849_216, 512),
        ("vit_b_16", 86_192_640, 512),
        ("vit_s_16", 21_813_504, 384),
        ("vit_l_14", 303_966_208, 768),
        ("vit_h_14", 632_076_800, 1024),
    ],
)
def test_parameter_count(variant, with_projection, joint_dim):
    _, shapes, _ = params.abstract(lambda rngs: ViT(variant, post_norm=True, rngs=rngs))
    assert params.count(shapes) == with_projection - vit.VARIANTS[variant].width * joint_dim


# timm's towers have these millions, with the pooling that a probe and one block of attention make.
@pytest.mark.parametrize(
    ("variant", "with_pooling"),
    [("siglip_b_16", 92.88), ("siglip_l_16", 315.96), ("siglip_so400m_14", 428.23)],
)
def test_parameter_count_of_siglip(variant, with_pooling):
    v = vit.VARIANTS[variant]
    _, shapes, _ = params.abstract(lambda rngs: ViT(variant, post_norm=True, rngs=rngs))
    w, hidden = v.width, v.ffw_width
    pooling = w + 4 * w * (w + 1) + 2 * w + 2 * w * hidden + hidden + w
    assert (params.count(shapes) + pooling) / 1e6 == pytest.approx(with_pooling, abs=0.005)


def test_siglip_leaves_over_what_is_no_whole_patch():
    """384 px cut by 14 are 27 x 27 patches and 6 px."""
    graph, shapes, _ = params.abstract(lambda rngs: ViT("siglip_so400m_14", rngs=rngs))
    pictures = jax.ShapeDtypeStruct((1, 384, 384, 3), jnp.float32)
    out = jax.eval_shape(lambda p, x: nnx.merge(graph, p)(x), shapes, pictures)
    assert out.shape == (1, 729, 1152)
    assert nnx.merge(graph, shapes).num_features(384) == 729


@pytest.mark.parametrize(("keep_class_token", "want"), [(True, 257), (False, 256)])
def test_public_flamingos_token_counts(keep_class_token, want):
    make = lambda rngs: ViT("vit_l_14", keep_class_token=keep_class_token, rngs=rngs)  # noqa: E731
    graph, shapes, _ = params.abstract(make)
    pictures = jax.ShapeDtypeStruct((3, 224, 224, 3), jnp.bfloat16)
    out = jax.eval_shape(lambda p, x: nnx.merge(graph, p)(x), shapes, pictures)
    assert (out.shape, out.dtype) == ((3, want, 1024), jnp.bfloat16)
    net = nnx.merge(graph, shapes)
    assert (net.num_features(224), net.width) == (want, 1024)


def test_class_token_is_the_first_of_the_tokens(thin, images):
    tree = without_post_norm(thin)
    kept = apply(tree, images, keep_class_token=True)
    assert kept.shape == (2, 17, 32)
    np.testing.assert_array_equal(kept[:, 1:], apply(tree, images))


def test_post_norm_is_a_layer_norm_of_each_token(thin, images):
    scale = jax.random.normal(jax.random.key(0), (32,))
    tree = thin | {"post_norm": {"scale": scale, "bias": scale[::-1]}}
    x = np.asarray(apply(without_post_norm(thin), images), np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    want = x * np.asarray(scale) + np.asarray(scale)[::-1]
    np.testing.assert_allclose(apply(tree, images, post_norm=True), want, rtol=1e-3, atol=1e-4)


def test_patches_run_row_by_row_with_their_positions(thin, images):
    """Swapping two patches and their positions swaps two tokens and changes nothing else."""
    swapped = images.at[:, 8:16, :8].set(images[:, :8, 24:]).at[:, :8, 24:].set(images[:, 8:16, :8])
    order = np.arange(17)
    order[[4, 5]] = order[[5, 4]]  # patch (0, 3) is token 1 + 3, patch (1, 0) is token 1 + 4
    tree = without_post_norm(thin)
    moved = tree | {"position_embedding": tree["position_embedding"][order]}
    have = apply(moved, swapped, keep_class_token=True)
    want = apply(tree, images, keep_class_token=True)[:, order]
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    assert np.abs(want[:, 4] - want[:, 5]).max() > 0.1


def test_quick_gelu_by_hand():
    """x * sigmoid(1.702 x): at 1, 1 / (1 + exp(-1.702)) = 0.845796; the erf form has 0.841345."""
    assert float(vit.GELU["quick_gelu"](jnp.float32(1))) == pytest.approx(0.845796, abs=1e-6)
    assert float(vit.GELU["gelu"](jnp.float32(1))) == pytest.approx(0.841345, abs=1e-6)


def test_scanned_equals_unrolled(thin, images):
    tree = without_post_norm(thin)
    unrolled = apply(unroll(tree), images, execution=Execution(scan=False))
    np.testing.assert_allclose(apply(tree, images), unrolled, rtol=1e-4, atol=1e-5)


def test_bfloat16_stays_bfloat16_and_close(thin, images):
    tree = without_post_norm(thin)
    full = apply(tree, images)
    half = apply(jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree), images.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert float(jnp.abs(half - full).mean() / jnp.abs(full).mean()) < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "vit_l_15"}, r"'vit_l_15': use one of \['vit_b_32'"),
        ({"variant": "vit_l_14", "activation": "relu"}, r"'relu': use one of \['quick_gelu'"),
        ({"variant": "vit_l_14", "size_px": 320}, "size_px=320: use a multiple of 14"),
        ({"variant": "vit_l_14", "size_px": 0}, "size_px=0: use a multiple of 14"),
        (
            {"variant": "siglip_b_16", "keep_class_token": True},
            "siglip_b_16 has no class token: set keep_class_token=False",
        ),
    ],
)
def test_impossible_choice_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        ViT(**options, rngs=Rngs(0))


def test_pictures_of_another_size_are_refused(thin, images):
    tree = without_post_norm(thin)
    with pytest.raises(ValueError, match="32 x 24: this ViT has positions for 32 x 32 px"):
        apply(tree, images[:, :, :24])
    with pytest.raises(ValueError, match=r"\[32, 32, 3\], want \[N, height, width, 3\]"):
        apply(tree, images[0])
    with pytest.raises(ValueError, match="320 x 320"):
        nnx.eval_shape(lambda: ViT("vit_l_14", rngs=Rngs(0))).num_features(320)


def randomize(torch, model):
    """Every parameter off its start, so that a norm or bias left out would show."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * (0.3 if parameter.ndim == 1 else 0.1))
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def compare(have, want, what):
    want = want.numpy()
    difference = np.abs(have - want).max() / np.abs(want).max()
    print(f"ViT against {what}, largest relative difference: {difference:.1e}")
    assert difference < 1e-4
    assert want.std() > 0.1


@pytest.mark.reference
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_agrees_with_transformers(images, activation):
    """All tokens before the last norm (what IDEFICS reads), and the class token after it."""
    torch = import_torch()
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    v = vit.VARIANTS["thin"]
    config = transformers.CLIPVisionConfig(
        hidden_size=v.width,
        intermediate_size=4 * v.width,
        num_hidden_layers=v.depth,
        num_attention_heads=v.num_heads,
        image_size=v.size_px,
        patch_size=v.patch_px,
        hidden_act=activation,
    )
    model = transformers.CLIPVisionModel(config).eval()
    state = {
        f"vision_model.{k.removeprefix('vision_model.')}": a
        for k, a in randomize(torch, model).items()
    }
    with torch.no_grad():
        want = model(torch.tensor(np.array(images).transpose(0, 3, 1, 2)))
    options = {"keep_class_token": True, "activation": activation}
    have = apply(from_huggingface(state, "thin"), images, **options)
    compare(have, want.last_hidden_state, f"transformers, {activation}")
    tree = from_huggingface(state, "thin", post_norm=True)
    have = apply(tree, images, post_norm=True, **options)
    compare(have[:, 0], want.pooler_output, f"transformers' pooled output, {activation}")


@pytest.mark.reference
def test_siglip_agrees_with_transformers():
    """After the last norm, as its pooling reads them, and before it; 4 px are left over."""
    torch = import_torch()
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    v = vit.VARIANTS["siglip_thin"]
    config = transformers.SiglipVisionConfig(
        hidden_size=v.width,
        intermediate_size=v.ffw_width,
        num_hidden_layers=v.depth,
        num_attention_heads=v.num_heads,
        image_size=v.size_px,
        patch_size=v.patch_px,
    )
    model = transformers.SiglipVisionModel(config).eval()
    state = {
        f"vision_model.{k.removeprefix('vision_model.')}": a
        for k, a in randomize(torch, model).items()
    }
    images = np.random.default_rng(3).normal(size=(2, 36, 36, 3)).astype(np.float32)
    with torch.no_grad():
        pictures = torch.tensor(images.transpose(0, 3, 1, 2))
        want = model(pictures, output_hidden_states=True)
    for post_norm, other in ((True, want.last_hidden_state), (False, want.hidden_states[-1])):
        graph, _, _ = params.abstract(
            lambda rngs, p=post_norm: ViT("siglip_thin", post_norm=p, rngs=rngs)
        )
        tree = from_huggingface(state, "siglip_thin", format="hf_siglip", post_norm=post_norm)
        compare(nnx.merge(graph, tree)(images), other, f"SigLIP, post_norm={post_norm}")


@pytest.mark.reference
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_agrees_with_open_clip(images, activation):
    """The patch tokens after the last norm: what OpenFlamingo reads."""
    torch = import_torch()
    transformer = pytest.importorskip("open_clip.transformer", reason="open_clip is not installed")
    v = vit.VARIANTS["thin"]
    model = transformer.VisionTransformer(
        image_size=v.size_px,
        patch_size=v.patch_px,
        width=v.width,
        layers=v.depth,
        heads=v.num_heads,
        mlp_ratio=4,
        output_dim=16,
        output_tokens=True,
        act_layer=transformer.QuickGELU if activation == "quick_gelu" else torch.nn.GELU,
    ).eval()
    state = {f"visual.{name}": a for name, a in randomize(torch, model).items()}
    with torch.no_grad():
        _, want = model(torch.tensor(np.array(images).transpose(0, 3, 1, 2)))
    have = apply(
        parameters(state, "thin", format="open_clip", prefix="visual.", post_norm=True),
        images,
        post_norm=True,
        activation=activation,
    )
    compare(have, want, f"open_clip, {activation}")
