"""The gated block: shut it is the identity, open it sees what the mask shows and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flamingo_jax.config import CrossAttentionConfig
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import plan
from flamingo_jax.models.gated_xattn import GatedCrossAttention
from flamingo_jax.train.step import gates

WIDTH, MEDIA_WIDTH, R = 8, 6, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(1, 4, WIDTH)).astype(np.float32)
MEDIA = RNG.normal(size=(1, 2 * R, MEDIA_WIDTH)).astype(np.float32)  # two media of R tokens
#                 media 1      media 2
SEEN = np.array([[[0, 0], [1, 0], [0, 1], [0, 1]]], bool)


@pytest.fixture(scope="module")
def block():
    """`f(attention_gate, ffw_gate, x, media, mask)` with random parameters."""
    config = CrossAttentionConfig(num_heads=2, head_dim=5, ffw_multiplier=2)
    graph, shapes, _ = params_lib.abstract(
        lambda rngs: GatedCrossAttention(config, WIDTH, MEDIA_WIDTH, rngs=rngs)
    )
    params = jax.tree.map(lambda s: jnp.asarray(RNG.normal(size=s.shape), jnp.float32), shapes)

    @jax.jit
    def run(attention_gate, ffw_gate, x, media, mask):
        gates = {"attention_gate": attention_gate, "ffw_gate": ffw_gate}
        model = nnx.merge(graph, params | gates)
        return model(x, model.media_keys(media), mask)

    return lambda *args: np.asarray(run(*map(jnp.float32, args[:2]), *args[2:]))


def test_gates_start_at_zero():
    config = CrossAttentionConfig(num_heads=2, head_dim=5)
    fresh = GatedCrossAttention(config, WIDTH, MEDIA_WIDTH, rngs=Rngs(0))
    assert float(fresh.attention_gate[...]) == float(fresh.ffw_gate[...]) == 0


def test_shut_it_is_exactly_the_identity(block):
    np.testing.assert_array_equal(block(0, 0, X, MEDIA, SEEN), X)


def test_the_two_gates_are_apart_and_scale_by_their_tanh(block):
    wide = block(20, 0, X, MEDIA, SEEN) - X  # tanh(20) = 1
    np.testing.assert_allclose(block(0.5, 0, X, MEDIA, SEEN) - X, np.tanh(0.5) * wide, atol=1e-5)
    wide = block(0, 20, X, MEDIA, SEEN) - X
    np.testing.assert_allclose(block(0, -0.5, X, MEDIA, SEEN) - X, -np.tanh(0.5) * wide, atol=1e-5)
    assert np.abs(wide).max() > 0.1


def test_text_before_the_first_image_gets_exactly_zero(block):
    np.testing.assert_array_equal(block(1, 0, X, MEDIA, SEEN)[:, 0], X[:, 0])


def test_a_token_reacts_to_its_own_image_and_not_to_another(block):
    other = MEDIA.copy()
    other[:, R:, 0] += 1  # media 2, seen by tokens 2 and 3
    a, b = block(1, 1, X, MEDIA, SEEN), block(1, 1, X, other, SEEN)
    np.testing.assert_array_equal(a[:, :2], b[:, :2])
    assert np.abs(a[:, 2:] - b[:, 2:]).max(axis=-1).min() > 1e-3


def test_tokens_do_not_see_each_other(block):
    other = X.copy()
    other[:, 3] += 1
    a, b = block(1, 1, X, MEDIA, SEEN), block(1, 1, other, MEDIA, SEEN)
    np.testing.assert_array_equal(a[:, :3], b[:, :3])


@pytest.mark.parametrize("normalize", [True, False])
def test_media_norm_can_be_left_out(normalize):
    """With it, scaling the media changes nothing; OpenFlamingo has none."""
    config = CrossAttentionConfig(num_heads=2, head_dim=5, normalize_media=normalize)
    fresh = GatedCrossAttention(config, WIDTH, MEDIA_WIDTH, rngs=Rngs(0))
    small, large = fresh.media_keys(100 * MEDIA), fresh.media_keys(200 * MEDIA)
    assert np.allclose(small.key, large.key, atol=1e-4) is normalize
    assert np.allclose(small.value, large.value, atol=1e-4) is normalize


def test_gradients_of_gates_are_summed_in_float32():
    """Each is a sum over every number of its branch; a sum kept in bfloat16 stops growing."""
    config = CrossAttentionConfig(num_heads=2, head_dim=16, ffw_multiplier=1)
    width, (b, t) = 32, (32, 256)
    graph, shapes, _ = params_lib.abstract(
        lambda rngs: GatedCrossAttention(config, width, width, rngs=rngs)
    )
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    params = jax.tree.map(lambda s: jnp.asarray(draw(*s.shape) * width**-0.5 + 0.1), shapes)
    x, media, wanted = draw(b, t, width), draw(b, R, width), draw(b, t, width) + 1
    mask = np.ones((b, t, 1), bool)

    def gates(dtype):
        def loss(params):
            block = nnx.merge(graph, params)
            y = block(x.astype(dtype), block.media_keys(media.astype(dtype)), mask)
            return (y.astype(jnp.float32) * wanted).sum()

        grads = jax.jit(jax.grad(loss))(params)
        return np.array([grads["attention_gate"], grads["ffw_gate"]])

    np.testing.assert_allclose(gates(jnp.bfloat16), gates(jnp.float32), rtol=0.02)


def test_made_as_idefics_makes_it():
    """A gate a channel opens that channel alone; keys' length is gone, and RMS norms have no bias.

    SwiGLU has a width of its own.
    """
    config = CrossAttentionConfig(
        num_heads=2,
        head_dim=5,
        normalize_media=False,
        norm="rmsnorm",
        qk_norm=True,
        activation="silu",
        gated_ffw=True,
        ffw_width=11,
        gate_per_channel=True,
    )
    graph, shapes, _ = params_lib.abstract(
        lambda rngs: GatedCrossAttention(config, WIDTH, MEDIA_WIDTH, rngs=rngs)
    )
    assert shapes["ffw"]["gate"]["kernel"].shape == (WIDTH, 11)
    assert (set(shapes["norm"]), shapes["query_norm"]["scale"].shape) == ({"scale"}, (5,))
    params = jax.tree.map(lambda s: jnp.asarray(RNG.normal(size=s.shape), jnp.float32), shapes)
    gate = jnp.zeros(WIDTH).at[3].set(0.5)
    closed = jnp.zeros(WIDTH)
    block = nnx.merge(graph, params | {"attention_gate": gate, "ffw_gate": closed})
    keys = block.media_keys(jnp.asarray(MEDIA))
    moved = np.asarray(block(jnp.asarray(X), keys, SEEN)) - X
    assert np.abs(moved[:, 1:, 3]).min() > 1e-4
    np.testing.assert_array_equal(np.delete(moved, 3, axis=-1), 0)
    longer = block.media_keys(jnp.asarray(3 * MEDIA))
    np.testing.assert_allclose(longer.key, keys.key, rtol=1e-4)
    np.testing.assert_allclose(longer.value, 3 * keys.value, rtol=1e-4)


def test_the_gate_that_is_logged_is_the_mean_of_a_vector():
    config = CrossAttentionConfig(every=2, branch_scale=2.0, gate_per_channel=True)
    vectors = {f"{branch}_gate": jnp.full((1, 4), 0.3) for branch in ("attention", "ffw")}
    (segment,) = plan(2, 2, 0)
    found = gates({"gated_xattn": {"groups": {"layers": vectors}}}, (segment,), config)
    assert {*found} == {"gate/0.attention", "gate/0.ffw"}
    np.testing.assert_allclose(found["gate/0.ffw"], 2 * np.tanh(0.3), rtol=1e-6)
