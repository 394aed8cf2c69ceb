"""The count of a whole train step: against the step's own trace, exactly, and against XLA's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.batch import Batch
from flamingo_jax.config import (
    CrossAttentionConfig,
    FlamingoConfig,
    ImagePreprocessing,
    LanguageModelConfig,
    ResamplerConfig,
    VisionConfig,
)
from flamingo_jax.core import op_count
from flamingo_jax.core import params as params_lib
from flamingo_jax.models.vision import output_shape
from flamingo_jax.train import flops
from flamingo_jax.train.losses import chunk_size
from flamingo_jax.train.optim import OptimizerConfig, make_optimizer
from flamingo_jax.train.state import TrainState
from flamingo_jax.train.step import make_train_step
from tests import tiny_flamingo as tiny


@dataclasses.dataclass
class Dataset:
    batch_size: int
    num_tokens: int
    num_media: int
    num_frames: int = 1


DATASETS = {"pages": Dataset(2, 192, 3), "videos": Dataset(4, 64, 1, num_frames=2)}


def config(encoder, size_px, *, resampler="perceiver", train_new_inputs=True, xattn=(), lm=()):
    """Wide enough for products to be nearly all there is to compute."""
    vision = VisionConfig(encoder, "thin", 0, 0, preprocessing=ImagePreprocessing(size_px=size_px))
    num_features, width = output_shape(vision)
    language_model = {
        "vocab_size": 1022,
        "num_layers": 3,
        "width": 512,
        "num_heads": 8,
        "head_dim": 64,
        "ffw_width": 1024,
    }
    cross_attention = {"every": 2, "offset": 1, "num_heads": 4, "head_dim": 96}
    return FlamingoConfig(
        language_model=LanguageModelConfig(**language_model | dict(lm)),
        vision=dataclasses.replace(vision, num_features=num_features, width=width),
        resampler=ResamplerConfig(
            resampler, num_latents=16, depth=2, width=256, num_heads=4, head_dim=64, num_frames=2
        ),
        cross_attention=CrossAttentionConfig(**cross_attention | dict(xattn)),
        num_new_tokens=2,
        train_new_inputs=train_new_inputs,
    )


PLAIN = {"gated_ffw": False, "positions": "relative"}  # Chinchilla's
CONFIGS = {
    "gated as IDEFICS's, efficientnet": config(
        "efficientnet_lite",
        64,
        xattn={"norm": "rmsnorm", "qk_norm": True, "gated_ffw": True, "ffw_width": 1408},
        lm={"num_kv_heads": 2},
    ),
    "no gradient below": config(
        "nfnet", 64, train_new_inputs=False, xattn={"media_width": 512}, lm=PLAIN
    ),
    "vanilla, transformer, vit": config(
        "vit",
        32,
        resampler="transformer",
        train_new_inputs=False,
        xattn={"kind": "vanilla", "every": 1},
    ),
    "graft, mlp": config(
        "vit", 32, resampler="mlp", xattn={"kind": "graft", "graft_depth": 2}, lm=PLAIN
    ),
    "graft, no gradient below": config(
        "vit", 32, train_new_inputs=False, xattn={"kind": "graft", "graft_depth": 1}
    ),
}


def shapes(config, dataset, *, pixels=True):
    """A batch of a dataset, as shapes."""
    b, t = dataset.batch_size, dataset.num_tokens
    m = dataset.num_media
    size_px = config.vision.preprocessing.size_px
    picture = (size_px, size_px, 3) if pixels else (config.vision.num_features, config.vision.width)
    return Batch(
        tokens=jax.ShapeDtypeStruct((b, t), jnp.int32),
        token_mask=jax.ShapeDtypeStruct((b, t), bool),
        loss_mask=jax.ShapeDtypeStruct((b, t), bool),
        media_index=jax.ShapeDtypeStruct((b, t), jnp.int32),
        media=jax.ShapeDtypeStruct(
            (b, m, dataset.num_frames, *picture), jnp.uint8 if pixels else jnp.float32
        ),
        media_mask=jax.ShapeDtypeStruct((b, m, dataset.num_frames), bool),
    )


def train_step(config, datasets, *, execution=tiny.UNROLLED, pixels=True, num_microbatches=1):
    """A whole update with its optimizer, and the shapes of its arguments."""
    graph, tree, _ = tiny.abstract(config, execution)
    trainable, frozen = params_lib.split(tree)
    optimizer = make_optimizer(OptimizerConfig())
    state = TrainState(
        jax.ShapeDtypeStruct((), jnp.int32),
        trainable,
        jax.eval_shape(optimizer.init, trainable),
        jax.ShapeDtypeStruct((2,), jnp.uint32),
    )
    weights = dict.fromkeys(datasets, 1.0)
    step = make_train_step(graph, config, optimizer, weights, num_microbatches)
    batches = {name: shapes(config, d, pixels=pixels) for name, d in datasets.items()}
    return jax.jit(step), (state, frozen, batches)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_counts_the_products_of_its_trace_and_what_xla_counts(name):
    """XLA counts elementwise operations too: 1% here. It is asked before it compiles."""
    step, args = train_step(CONFIGS[name], DATASETS)
    found = flops.train_step(CONFIGS[name], DATASETS.values(), encode_media=True)
    assert found == op_count.flops(step, *args)
    found -= loops(CONFIGS[name])
    np.testing.assert_allclose(found, step.lower(*args).cost_analysis()["flops"], rtol=0.03)


def test_microbatches_count_as_many_chunks_and_positions_as_they_compute():
    """Relative positions are projected in every part; a part's chunks of logits are smaller."""
    name = "no gradient below"
    step, args = train_step(CONFIGS[name], DATASETS, num_microbatches=2)
    found, whole = (
        flops.train_step(CONFIGS[name], DATASETS.values(), encode_media=True, num_microbatches=n)
        for n in (2, 1)
    )
    assert found == op_count.flops(step, *args)
    lm = CONFIGS[name].language_model
    tokens = sum(d.num_tokens for d in DATASETS.values())
    assert found - whole == 2 * lm.num_layers * tokens * lm.width**2


def test_a_compiled_step_counts_the_same():
    name = "no gradient below"
    step, args = train_step(CONFIGS[name], DATASETS)
    found = flops.train_step(CONFIGS[name], DATASETS.values(), encode_media=True)
    found -= loops(CONFIGS[name])
    compiled = step.lower(*args).compile()
    np.testing.assert_allclose(found, compiled.cost_analysis()["flops"], rtol=0.03)


def loops(config):
    """What XLA does not count of the loss's chunks, as it counts a loop's body once."""
    missing = 0.0
    for batch in map(flops.Batch.of, DATASETS.values()):
        chunk = chunk_size(batch.size * batch.num_tokens)
        num_chunks = batch.size * batch.num_tokens / chunk
        assert num_chunks == 4
        head = flops.batch(config, batch, encode_media=True)["head"]
        missing += (1 - 1 / num_chunks) * head.total
    return missing


def test_scanned_layers_and_chunks_of_the_loss_count_as_often_as_they_run():
    """600 rows of 8 tokens have 4,200 targets, in 9 chunks of 512 and never a tenth one.

    Features come cached.
    """
    datasets = {"pairs": Dataset(600, 8, 1), "pages": DATASETS["pages"]}
    step, args = train_step(tiny.CONFIG, datasets, execution=tiny.SCANNED, pixels=False)
    found = flops.train_step(tiny.CONFIG, datasets.values(), encode_media=False)
    one_too_many = 2 * 2 * 512 * 16 * tiny.VOCAB + 3 * 2 * 512 * 16 * 2
    assert found == op_count.flops(step, *args) - one_too_many  # the trace cannot know it is empty


def test_a_layer_with_a_window_counts_so_many_keys_a_token():
    b, lm = flops.Batch(2, 64, 0), CONFIGS["no gradient below"].language_model
    near = dataclasses.replace(lm, sliding_window=16, global_layers=(1,))
    spared = 2 * 2 * b.size * 64 * (64 - 16) * 8 * 64  # queries with keys, weights with values
    whole, found = (flops.blocks(one, b, range(3)) for one in (lm, near))
    assert whole.forward - found.forward == 2 * spared  # of two layers
    assert whole.activations - found.activations == 2 * 2 * spared
    assert flops.blocks(near, b, range(3, 5)) == flops.blocks(lm, b, range(3, 5))  # of a graft
    assert flops.blocks(dataclasses.replace(lm, sliding_window=99), b, range(3)) == whole


def test_frozen_parts_have_no_gradient_of_weights_and_trained_ones_have_all():
    batches = map(flops.Batch.of, DATASETS.values())
    parts = flops.step(CONFIGS["no gradient below"], batches, encode_media=True)
    assert parts["vision"].activations == parts["vision"].weights == 0
    assert parts["language_model"].weights == 0
    assert 0 < parts["language_model"].activations < parts["language_model"].forward
    xattn = parts["gated_xattn"]
    assert xattn.activations > xattn.forward > 0.9 * xattn.weights  # attention's products have two
    assert parts["head"].activations == parts["head"].forward
    assert "graft" not in parts


def test_pairs_have_one_media_each_and_datasets_add_up():
    datasets = [
        StreamConfig("pages", "", "page", 3, num_tokens=16, max_media=4),
        StreamConfig("pairs", "", "pair", 5, num_tokens=8, max_media=4),
        StreamConfig("packed", "", "pair", 5, num_tokens=32, max_media=1, pairs_per_row=4),
    ]
    want = [
        sum(p.total for p in flops.batch(tiny.CONFIG, b, encode_media=False).values())
        for b in (flops.Batch(3, 16, 4), flops.Batch(5, 8, 1), flops.Batch(5, 32, 4))
    ]
    assert flops.train_step(tiny.CONFIG, datasets) == sum(want)
    in_turn = flops.train_step(tiny.CONFIG, datasets, accumulate=False)
    assert in_turn == pytest.approx(sum(want) / 3)


# Multiply-adds as published, which count taps on padding too: NFNet at its test size (Brock et al.
# 2021, table 3), CLIP's ViT-L/14 as timm lists it.
@pytest.mark.parametrize(
    ("kind", "variant", "size_px", "published"),
    [
        ("nfnet", "f0", 256, 12.38e9),
        ("nfnet", "f1", 320, 35.54e9),
        ("vit", "vit_l_14", 224, 81.1e9),
    ],
)
def test_an_encoder_counts_what_is_published(kind, variant, size_px, published):
    encoder = VisionConfig(kind, variant, 0, 0, preprocessing=ImagePreprocessing(size_px=size_px))
    assert published * 0.97 < flops.encoder(encoder) / 2 <= published
