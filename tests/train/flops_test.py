"""The FLOP count against the one XLA makes of the program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.batch import Batch
from flamingo_jax.config import (
    CrossAttentionConfig,
    FlamingoConfig,
    LanguageModelConfig,
    ResamplerConfig,
    VisionConfig,
)
from flamingo_jax.core import params as params_lib
from flamingo_jax.train import flops
from flamingo_jax.train.step import batch_loss
from tests import tiny_flamingo as tiny


def config(**fields):
    """Wide enough for matrix products to be nearly all there is to compute."""
    return FlamingoConfig(
        language_model=LanguageModelConfig(
            vocab_size=1022,
            num_layers=5,
            width=256,
            num_heads=8,
            head_dim=32,
            ffw_width=512,
            num_kv_heads=2,
        ),
        vision=VisionConfig("efficientnet_lite", "thin", 32, 192),
        resampler=ResamplerConfig(num_latents=16, depth=2, width=256, num_heads=4, head_dim=64),
        cross_attention=CrossAttentionConfig(every=2, offset=2, num_heads=4, head_dim=48),
        num_new_tokens=2,
        **fields,
    )


def counted_by_xla(config, batch_size, num_tokens, num_media):
    """Of loss and gradient, traced without making an array; unrolled, for a loop counts once."""
    graph, shapes, _ = tiny.abstract(config, tiny.UNROLLED)
    trainable, frozen = params_lib.split(shapes)
    row, media = (batch_size, num_tokens), (batch_size, num_media, 1)
    features = (*media, config.vision.num_features, config.vision.width)
    batch = Batch(
        tokens=jax.ShapeDtypeStruct(row, jnp.int32),
        token_mask=jax.ShapeDtypeStruct(row, bool),
        loss_mask=jax.ShapeDtypeStruct(row, bool),
        media_index=jax.ShapeDtypeStruct(row, jnp.int32),
        media=jax.ShapeDtypeStruct(features, jnp.float32),
        media_mask=jax.ShapeDtypeStruct(media, bool),
    )
    gradient = jax.value_and_grad(lambda t, f, batch: batch_loss(graph, t, f, batch))
    return jax.jit(gradient).lower(trainable, frozen, batch).cost_analysis()["flops"]


@pytest.mark.parametrize("train_new_inputs", [True, False])
def test_a_step_counts_what_xla_counts(train_new_inputs):
    c = config(train_new_inputs=train_new_inputs)
    batch_size, num_tokens, num_media = 2, 256, 3
    found = batch_size * flops.sequence(c, num_tokens, num_media)
    np.testing.assert_allclose(
        found, counted_by_xla(c, batch_size, num_tokens, num_media), rtol=0.04
    )


def test_pairs_have_one_media_and_datasets_add_up():
    class Pages:
        batch_size, num_tokens, max_media, kind = 3, 16, 4, "page"

    class Pairs:
        batch_size, num_tokens, max_media, kind = 5, 8, 4, "pair"

    want = 3 * flops.sequence(tiny.CONFIG, 16, 4) + 5 * flops.sequence(tiny.CONFIG, 8, 1)
    assert flops.train_step(tiny.CONFIG, [Pages, Pairs]) == want
