"""Projections that begin as the identity: what is looked at arrives as it is."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.config import CrossAttentionConfig, ResamplerConfig
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.gated_xattn import GatedCrossAttention
from flamingo_jax.models.resampler import PerceiverResampler
from tests import tiny_flamingo as tiny

RESAMPLER = ResamplerConfig(
    num_latents=3, depth=1, width=12, num_heads=3, head_dim=4, values_init="identity", num_frames=0
)
XATTN = CrossAttentionConfig(num_heads=3, head_dim=4, values_init="identity")


def test_a_resampler_begins_as_the_mean_of_normalised_features():
    """Latents, which are small, aside: with one feature seen, every visual token is it, normed."""
    model = PerceiverResampler(RESAMPLER, 12, Execution(), rngs=Rngs(0))
    feature = np.random.default_rng(0).normal(size=(1, 1, 1, 1, 12)).astype(np.float32)
    model.latents.value = jnp.zeros_like(model.latents.value)
    found = model(jnp.asarray(feature))[0, 0]
    want = (feature[0, 0, 0, 0] - feature.mean()) / feature.std()
    np.testing.assert_allclose(found, np.tile(want, (3, 1)), atol=1e-3)


@pytest.mark.parametrize("normalize", [True, False])
def test_longer_features_weigh_more_where_they_are_not_normed(normalize):
    """Attention that is the same everywhere, to two features and three latents that are zero."""
    config = dataclasses.replace(RESAMPLER, normalize_media=normalize)
    model = PerceiverResampler(config, 12, Execution(), rngs=Rngs(0))
    model.latents.value = jnp.zeros_like(model.latents.value)
    key = model.blocks.layers.key.kernel
    key.value = jnp.zeros_like(key.value)
    features = np.random.default_rng(0).normal(size=(2, 12)).astype(np.float32)
    features *= np.array([[10.0], [0.1]])
    found = model(jnp.asarray(features)[None, None, None])[0, 0, 0]

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)

    want = norm((norm(features) if normalize else features).sum(0))
    np.testing.assert_allclose(found, want, atol=2e-3)


def test_a_gated_block_adds_the_visual_token_once_its_gate_opens():
    block = GatedCrossAttention(XATTN, 12, 12, rngs=Rngs(0))
    rng = np.random.default_rng(1)
    x, token = rng.normal(size=(2, 1, 1, 12)).astype(np.float32)
    mask = np.ones((1, 1, 1), bool)
    block.attention_gate.value = jnp.float32(0.5)
    found = block(jnp.asarray(x), block.media_keys(jnp.asarray(token)), mask)
    want = x + np.tanh(0.5) * (token - token.mean()) / token.std()
    np.testing.assert_allclose(found, want, atol=1e-4)


def test_other_widths_are_refused_by_name():
    lm = tiny.CONFIG.language_model.width
    with pytest.raises(ValueError, match=r"^resampler.values_init=identity: .* width 12"):
        tiny.changed(resampler={"values_init": "identity"})
    with pytest.raises(ValueError, match=r"^cross_attention.values_init=identity: cross_attention"):
        tiny.changed(cross_attention={"values_init": "identity", "num_heads": 1})
    fits = {"values_init": "identity", "num_heads": lm // 4, "head_dim": 4}
    with pytest.raises(ValueError, match=f"visual tokens are 12 wide, the language model {lm}"):
        tiny.changed(cross_attention=fits)
    assert dataclasses.asdict(tiny.changed(cross_attention=fits | {"media_width": lm}))
