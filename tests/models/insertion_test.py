"""The paper's other ways to show media to a language model, each against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from flamingo_jax.config import FlamingoConfig, from_dict, to_dict
from flamingo_jax.core import params as params_lib
from flamingo_jax.decode.steps import prefill, step
from flamingo_jax.models import insertion, media_mask
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.models.lm import logits
from flamingo_jax.train.step import batch_loss, gates
from tests import tiny_flamingo as tiny

# Each of the other kinds once: of cross-attention, of resampler, of gating.
VANILLA = tiny.changed(
    lm={"num_layers": 3},
    cross_attention={"kind": "vanilla", "every": 1, "offset": 1},
    resampler={"kind": "transformer", "depth": 1},
)
GRAFT = tiny.changed(
    lm={"num_layers": 2},
    cross_attention={"kind": "graft", "every": 1, "offset": 0, "graft_depth": 2},
    resampler={"kind": "mlp", "depth": 1},
)
UNGATED = tiny.changed(
    lm={"num_layers": 2}, cross_attention={"every": 1, "offset": 0, "gating": "none"}
)
CONFIGS = {"vanilla": VANILLA, "graft": GRAFT, "ungated": UNGATED}


@pytest.fixture(scope="module", params=CONFIGS, ids=list(CONFIGS))
def config(request):
    return CONFIGS[request.param]


@pytest.fixture(scope="module")
def forward(config):
    """`f(params, batch)`."""
    return tiny.jit(Flamingo.__call__, config)


@pytest.fixture(scope="module")
def params(config):
    return tiny.random_params(config)


def moved(batch, media_number):
    """The batch with another picture in one place."""
    media = batch.media.copy()
    media[:, media_number - 1] += 1
    return batch._replace(media=media)


def by_hand(config, model: Flamingo, batch):
    """Logits composed block by block, as the drawing in `insertion.py` shows."""
    lm = model.language_model
    visual = model.visual_tokens(batch.media, batch.media_mask)
    flat = visual.reshape(visual.shape[0], -1, visual.shape[-1])
    mask = media_mask.text_media_mask(batch.media_index, batch.media_mask.any(-1))
    context = lm.context(batch.token_mask)
    kind, offset = config.cross_attention.kind, config.cross_attention.offset

    def look(x, stack, i):
        layer = stack.layer(i)
        return layer(x, layer.media_keys(flat), mask)

    def halves(x, block, between):
        x = between(x + block.attention(block.attention_norm(x), context, None)[0])
        return x + block.ffw(block.ffw_norm(x))

    def block(i):
        if kind == "graft" or i < offset:
            return lm.blocks.before.layer(0).layer(i)
        return lm.blocks.groups.layer(i - offset).layer(0)

    x = model.embed(batch.tokens)
    for i in range(config.language_model.num_layers):
        if kind == "gated":
            x = look(x, model.gated_xattn.groups, i)
        if kind == "vanilla" and i >= offset:
            x = halves(x, block(i), lambda x, i=i: look(x, model.gated_xattn.groups, i - offset))
        else:
            x = halves(x, block(i), lambda x: x)
    x = lm.final_norm(x)
    if kind == "graft":
        for i in range(config.cross_attention.graft_depth):
            layer = model.graft.blocks.graft.layer(i).layer(0)
            x = halves(x, layer, lambda x, i=i: look(x, model.gated_xattn.graft, i))
        x = model.graft.norm(x)
    return logits(x, jnp.concatenate([lm.output_embedding, model.new_tokens.output_embedding]))


def test_blocks_stand_as_drawn(config, forward, params):
    batch = tiny.random_batch()
    want = tiny.jit(lambda model, batch: by_hand(config, model, batch), config)(params, batch)
    np.testing.assert_allclose(forward(params, batch), want, atol=2e-5)


def test_no_token_before_an_image_reacts_to_it(forward, params):
    batch = tiny.random_batch()
    a, b = forward(params, batch), forward(params, moved(batch, 2))
    np.testing.assert_array_equal(a[:, :5], b[:, :5])  # the second image's tag stands at 5
    assert np.abs(a - b).max(axis=-1)[:, 5:].min() > 1e-4


def test_cached_decoding_equals_the_full_forward(config, forward, params):
    batch = tiny.random_batch()
    want = np.asarray(forward(params, batch))[:, -2:]
    names = ("tokens", "token_mask", "loss_mask", "media_index")
    prompt = batch._replace(**{name: getattr(batch, name)[:, :-1] for name in names})
    first, state = tiny.jit(lambda m, prompt: prefill(m, prompt, 1), config)(params, prompt)
    second, _ = tiny.jit(step, config)(params, batch.tokens[:, -1], state)
    np.testing.assert_allclose(np.stack([first, second], axis=1), want, atol=2e-5)


@pytest.mark.parametrize("config", [VANILLA, GRAFT], ids=["vanilla", "graft"])
def test_every_trained_leaf_has_a_gradient(config):
    params = tiny.random_params(config)
    graph, _, _ = tiny.abstract(config)
    trainable, frozen = params_lib.split(params)
    gradient = jax.jit(jax.grad(lambda t, batch: batch_loss(graph, t, frozen, batch)))
    flat = traverse_util.flatten_dict(gradient(trainable, tiny.random_batch(num_frames=2)))
    still = {path for path, leaf in flat.items() if not np.asarray(leaf).any()}
    assert still == set()
    assert ("graft" in trainable) == (config is GRAFT)


def test_vanilla_starts_from_the_bare_language_model():
    """Its gates are kept, for fairness (v1 of the paper)."""
    params, batch = tiny.random_params(VANILLA, gate=0.0), tiny.random_batch()
    batch = batch._replace(tokens=np.where(batch.tokens < tiny.VOCAB, batch.tokens, 7))
    ours = tiny.jit(Flamingo.__call__, VANILLA)(params, batch)[..., : tiny.VOCAB]
    bare = tiny.jit(lambda m, *args: m.language_model(*args), VANILLA)
    np.testing.assert_array_equal(ours, bare(params, batch.tokens, batch.token_mask))


def test_vanilla_has_no_feed_forward_and_gating_none_no_scalar():
    def leaves(config):
        layers = tiny.abstract(config)[1]["gated_xattn"]["groups"]["layers"]
        return {path[0] for path in traverse_util.flatten_dict(layers)}

    attention = {"norm", "media_norm", "query", "key", "value", "out"}
    dense = {"ffw_norm", "ffw"}
    assert leaves(tiny.CONFIG) == attention | dense | {"attention_gate", "ffw_gate"}
    assert leaves(VANILLA) == attention | {"attention_gate"}
    assert leaves(UNGATED) == attention | dense


def test_metrics_have_the_gates_there_are():
    def names(config):
        trainable, _ = params_lib.split(tiny.random_params(config))
        segments = insertion.cross_attention_segments(config)
        return set(gates(trainable, segments, config.cross_attention))

    blocks = {f"gate/{i}.{branch}" for i in (1, 3, 5) for branch in ("attention", "ffw")}
    assert names(tiny.CONFIG) == blocks
    assert names(VANILLA) == {"gate/1.attention", "gate/2.attention"}
    assert names(GRAFT) == {"gate/2.attention", "gate/3.attention"}
    assert names(UNGATED) == set()


def starts(config) -> list[int]:
    """Blocks that cross-attention stands before, or in."""
    segments = insertion.cross_attention_segments(config)
    return [s.start + i * s.depth for s in segments for i in range(s.repeats)]


@pytest.mark.parametrize(
    ("every", "offset", "want"),
    [
        (12, 12, [12]),  # a single one in the middle
        (2, 0, list(range(0, 24, 2))),
        (4, 0, list(range(0, 24, 4))),
        (1, 0, list(range(24))),
        (7, 5, [5, 12, 19]),
    ],
)
def test_where_blocks_stand(every, offset, want):
    config = tiny.changed(lm={"num_layers": 24}, cross_attention={"every": every, "offset": offset})
    assert starts(config) == want


def test_a_graft_is_numbered_on_from_the_language_model():
    assert starts(GRAFT) == [2, 3]
    assert [s.gated for s in insertion.language_model_segments(GRAFT)] == [False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "vanilla", "every": 2}, r"every=2: of kind vanilla, .* use 1"),
        ({"kind": "graft", "graft_depth": 0}, r"graft_depth=0: use 1 or more"),
        ({"offset": 6}, r"offset=6: the language model has 6 blocks, so use 0 to 5"),
        ({"every": 0}, r"every=0: use 1 or more"),
        ({"num_heads": 0}, r"num_heads=0: use 1 or more"),
        ({"ffw_multiplier": -1}, r"ffw_multiplier=-1: use 1 or more"),
    ],
)
def test_what_does_not_exist_is_said_in_one_line(changes, message):
    with pytest.raises(ValueError, match=f"^cross_attention.{message}"):
        tiny.changed(cross_attention=changes)


@pytest.mark.parametrize("part", ["resampler", "cross_attention"])
def test_a_kind_that_does_not_exist_is_said_with_those_that_do(part):
    values = to_dict(tiny.CONFIG)
    values[part]["kind"] = "convolution"
    with pytest.raises(ValueError, match=rf"{part}.kind='convolution': use one of \['"):
        from_dict(FlamingoConfig, values)
