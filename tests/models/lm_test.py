"""Properties of the language model that hold for every kind of it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.configs.language_models import LANGUAGE_MODELS
from flamingo_jax.config import (
    LanguageModelConfig,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    from_dict,
    to_dict,
)
from flamingo_jax.core import params
from flamingo_jax.core.stack import Execution, plan
from flamingo_jax.models.lm import LanguageModel, logits
from flamingo_jax.models.lm_block import Cache

BATCH, LENGTH, VOCAB, NEW = 2, 12, 40, 3
SEGMENTS = plan(4, 2, 0)  # 2 groups of 2

SIZES = LanguageModelConfig(
    vocab_size=VOCAB,
    num_layers=4,
    width=32,
    num_heads=4,
    head_dim=8,
    ffw_width=48,
    max_length=64,
)
LONG_ROPE = LongRopeScaling((1.0, 1.0, 1.0, 1.0), (1.0, 2.0, 4.0, 8.0), 1, attention_factor=1.2)
PLAIN = {"gated_ffw": False, "activation": "gelu"}
LAYERNORM = {"norm": "layernorm", **PLAIN}
KINDS = {
    "chinchilla": dataclasses.replace(SIZES, positions="relative", **PLAIN),
    "llama": dataclasses.replace(SIZES, num_kv_heads=2, tied_head=False),
    "llama_3": dataclasses.replace(
        SIZES, rope_scaling=Llama3Scaling(4.0, 0.2, 1.0, 8), sliding_window=4
    ),
    "qwen2": dataclasses.replace(
        SIZES,
        num_kv_heads=2,
        qkv_bias=True,
        sliding_window=4,
        global_layers=(0, 1),
        rope_scaling=LONG_ROPE,
    ),
    "gemma_2": dataclasses.replace(
        SIZES,
        num_kv_heads=1,
        activation="gelu_tanh",
        norm_offset=True,
        scale_embedding=True,
        sandwich_norm=True,
        sliding_window=4,
        global_layers=(1, 3),
        query_pre_attn_scalar=4.0,
        attention_softcap=2.0,
        logits_softcap=3.0,
    ),
    "gemma_3": dataclasses.replace(
        SIZES,
        num_kv_heads=2,
        sandwich_norm=True,
        qk_norm=True,
        qk_norm_by_head=True,
        sliding_window=4,
        global_layers=(3,),
        local_rope_base=10.0,
        rope_scaling=LinearScaling(4.0),
    ),
    "olmo_2": dataclasses.replace(SIZES, qk_norm=True, norm_after=True),
    "mpt": dataclasses.replace(
        SIZES, positions="alibi", norm_bias=False, qk_norm=True, **LAYERNORM
    ),
    "gpt_neox": dataclasses.replace(
        SIZES, rope_dims=2, parallel_residual=True, use_bias=True, **LAYERNORM
    ),
    "opt": dataclasses.replace(SIZES, positions="learned", use_bias=True, **LAYERNORM),
}


class Model:
    """A kind of model with random parameters, biases and norms too."""

    def __init__(self, config: LanguageModelConfig, dtype=jnp.float32):
        self.config = config
        self.graph, shapes, _ = params.abstract(
            lambda rngs: LanguageModel(config, Execution(), SEGMENTS, rngs=rngs)
        )
        rng = np.random.default_rng(0)

        def draw(path, leaf):
            mean = float(path[-1].key == "scale" and not config.norm_offset)
            return jnp.asarray(mean + 0.2 * rng.normal(size=leaf.shape), dtype)

        self.params = jax.tree_util.tree_map_with_path(draw, shapes)
        self.logits = jax.jit(lambda p, *args: nnx.merge(self.graph, p)(*args))
        self.step = jax.jit(self._step)

    def __call__(self, tokens, mask=None):
        mask = np.ones(tokens.shape, bool) if mask is None else mask
        return np.asarray(self.logits(self.params, tokens, mask))

    def cache(self, rows, slots):
        """Without any token."""
        width = self.config.kv_heads, self.config.head_dim
        shapes = {s.name: (s.repeats, s.depth, rows, slots, *width) for s in SEGMENTS}
        return {name: Cache(jnp.zeros(shape), jnp.zeros(shape)) for name, shape in shapes.items()}

    def cached(self, tokens, mask):
        """The logits of `__call__`, computed a few tokens at a time through a cache."""
        slots = tokens.shape[1]
        cache = self.cache(*tokens.shape)
        out, start = [], 0
        for count in (5, 1, 1, 3, 1, 1):
            stop = start + count
            known = mask & (np.arange(slots) < stop)
            logits, cache = self.step(self.params, cache, tokens[:, start:stop], known, start)
            out.append(logits)
            start = stop
        return np.concatenate(out, axis=1)

    def _step(self, params, cache, tokens, known, start, prompt=None):
        model = nnx.merge(self.graph, params)
        shared = prompt is not None
        how = {"prompt": prompt, "side_by_side": shared}
        context = model.context(known, start, tokens.shape[1], **how)
        if shared:
            context = context._replace(index=start - (known.shape[1] - NEW))
        hidden, cache = model.hidden(model.embedding[...][tokens], context, cache)
        return logits(hidden, model.output_embedding, self.config.logits_softcap), cache


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return Model(KINDS[request.param])


@pytest.fixture
def tokens():
    return np.random.default_rng(1).integers(0, VOCAB, (BATCH, LENGTH)).astype(np.int32)


def test_cached_decoding_equals_the_full_forward(model, tokens):
    mask = np.ones(tokens.shape, bool)
    mask[0, :3] = False  # prompts of unequal length end together
    np.testing.assert_allclose(
        model.cached(tokens, mask)[mask], model(tokens, mask)[mask], atol=2e-5
    )


@pytest.mark.parametrize("model", ["chinchilla", "llama", "qwen2", "mpt", "opt"], indirect=True)
def test_rows_that_share_a_prompt_equal_the_full_forward(model, tokens):
    """Two rows go on from each prompt, which is padded on the left, and see it and themselves."""
    mask = np.ones(tokens.shape, bool)
    mask[0, :3] = False
    whole, mask = np.repeat(tokens, 2, axis=0), np.repeat(mask, 2, axis=0)
    whole[1::2, -NEW:] = whole[1::2, -NEW:][:, ::-1]
    want = model(whole, mask)[:, -NEW:]
    np.testing.assert_allclose(written_on(model, whole, mask, 2), want, atol=2e-5)


def written_on(model, tokens, mask, beams):
    """Logits [rows, NEW, V] of the last tokens of rows, `beams` of which share what is before."""
    place = LENGTH - NEW
    first, known = tokens[::beams, :place], mask[::beams, :place]
    cache = model.cache(len(first), place)
    prompt = model.step(model.params, cache, first, known, 0)[1]
    cache, found = model.cache(len(tokens), NEW), []
    for i in range(place, LENGTH):
        known = mask & (np.arange(LENGTH) <= i)
        step = model.step(model.params, cache, tokens[:, i : i + 1], known, i, prompt)
        cache = step[1]
        found.append(step[0])
    return np.concatenate(found, axis=1)


def test_a_text_that_grows_long_turns_as_its_prompt_did(tokens):
    """Prompts of 9 tokens are short, and their keys in the cache; 12 in one text would be long."""
    short = dataclasses.replace(LONG_ROPE, trained_length=LENGTH - NEW)
    always = dataclasses.replace(short, long_factors=short.short_factors)
    mask = np.ones(tokens.shape, bool)
    one, other = (Model(dataclasses.replace(SIZES, rope_scaling=s)) for s in (short, always))
    want = other(tokens)
    np.testing.assert_allclose(written_on(one, tokens, mask, 1), want[:, -NEW:], atol=2e-5)
    assert np.abs(one(tokens) - want)[:, 1:].max() > 1e-2


def test_a_gap_before_decoding_changes_nothing(model, tokens):
    """Prompts padded on the right, then generated tokens: positions go on from the prompt's."""
    gap, left = np.ones((2, *tokens.shape), bool)
    gap[0, 2:5] = False
    left[0, :3] = False
    moved = tokens.copy()
    moved[left] = tokens[gap]
    np.testing.assert_allclose(model.cached(tokens, gap)[gap], model(moved, left)[left], atol=2e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model, tokens, side):
    real = slice(5, None) if side == "left" else slice(-5)
    mask = np.zeros(tokens.shape, bool)
    mask[:, real] = True
    bare = model(tokens[:, real])
    np.testing.assert_allclose(model(tokens, mask)[:, real], bare, atol=2e-5)


def test_no_token_sees_a_later_one(model, tokens):
    changed = tokens.copy()
    changed[:, 6] = (changed[:, 6] + 1) % VOCAB
    difference = np.abs(model(tokens) - model(changed)).max(axis=(0, 2))
    assert (difference[:6] == 0).all()
    assert (difference[6:] > 1e-3).all()


def test_a_window_ends_where_it_says(tokens):
    """Each of four layers sees one token before; the third sees all, where it has no window."""
    changed = tokens.copy()
    changed[:, 2] = (changed[:, 2] + 1) % VOCAB
    for global_layers, last in (((), 6), ((2,), LENGTH - 1)):
        model = Model(dataclasses.replace(SIZES, sliding_window=2, global_layers=global_layers))
        differs = np.abs(model(tokens) - model(changed)).max(axis=(0, 2)) > 0
        assert np.flatnonzero(differs).tolist() == [*range(2, last + 1)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sliding_window": 0}, "sliding_window=0: use 1 or more"),
        ({"local_rope_base": 1e4}, "without a sliding_window all layers are global"),
        ({"attention_softcap": 0.0}, "attention_softcap=0.0: use more than 0, or None"),
        ({"norm_after": True, "sandwich_norm": True}, "set one of them"),
        ({"global_layers": (1,)}, "without a sliding_window all layers are global"),
        ({"sliding_window": 4, "global_layers": (4,)}, "has 4 layers, so use 0 to 3"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SIZES, **change)


def test_order_matters(model, tokens):
    """The last token's logits change when two earlier tokens change places."""
    swapped = tokens.copy()
    swapped[:, [2, 5]] = tokens[:, [5, 2]]
    assert np.abs(model(tokens) - model(swapped))[:, -1].max() > 1e-3


def test_bfloat16_parameters_give_float32_logits(model, tokens):
    logits = Model(model.config, jnp.bfloat16)(tokens)
    assert logits.dtype == np.float32
    want, have = jax.nn.log_softmax(model(tokens)), jax.nn.log_softmax(logits)
    assert np.abs(want - have).mean() < 0.1  # of log-probs that spread over several nats


def test_learned_positions_end_at_max_length():
    config = dataclasses.replace(KINDS["opt"], max_length=8)
    with pytest.raises(ValueError, match=r"12 tokens.*language_model\.max_length=8"):
        Model(config)(np.zeros((1, LENGTH), np.int32))


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("chinchilla_44m", 44e6),
        ("chinchilla_117m", 117e6),
        ("chinchilla_251m", 251e6),
        ("chinchilla_425m", 425e6),
        ("chinchilla_1b", 1.374e9),
        ("chinchilla_7b", 7.110e9),
        ("chinchilla_70b", 70.06e9),
        ("chinchilla_1429m", 1.429e9),
        ("chinchilla_6796m", 6.796e9),
        ("mpt_7b", 6_649_286_656),
        ("llama_7b", 6_738_415_616),
        ("pythia_12b", 11_846_072_320),
        ("gpt2", 124_439_808),
        ("opt_6.7b", 6_658_473_984),
        ("smollm2_135m", 134_515_008),
    ],
)
def test_parameter_counts_are_the_published_ones(name, published):
    assert count(name) == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("smollm2_1.7b", 1_711_376_384),
        ("llama_3.1_8b", 8_030_261_248),
        ("llama_3.2_1b", 1_235_814_400),
        ("llama_3.2_3b", 3_212_749_824),
        ("qwen2.5_0.5b", 494_032_768),
        ("qwen2.5_1.5b", 1_543_714_304),
        ("qwen2.5_7b", 7_615_616_512),
        ("qwen3_0.6b", 596_049_920),
        ("qwen3_1.7b", 1_720_574_976),
        ("qwen3_4b", 4_022_468_096),
        ("qwen3_8b", 8_190_735_360),
        ("mistral_7b", 7_241_732_096),
        ("olmo_2_1b", 1_484_916_736),
        ("olmo_2_7b", 7_298_617_344),
        ("olmo_2_13b", 13_716_198_400),
        ("phi_3_mini", 3_821_079_552),
        ("phi_4", 14_659_507_200),
        ("gemma_2b", 2_506_172_416),
        ("gemma_7b", 8_537_680_896),
        ("gemma_2_2b", 2_614_341_888),
        ("gemma_2_9b", 9_241_705_984),
        ("gemma_2_27b", 27_227_128_320),
        ("gemma_3_1b", 999_885_952),
        ("gemma_3_4b", 3_880_263_168),
        ("gemma_3_12b", 11_766_034_176),
        ("gemma_3_27b", 27_009_346_304),
    ],
)
def test_parameter_counts_are_the_published_ones_to_the_last(name, published):
    assert count(name) == published


def count(name):
    config = LANGUAGE_MODELS[name]
    _, shapes, _ = params.abstract(lambda rngs: LanguageModel(config, Execution(), rngs=rngs))
    return params.count(shapes)


def test_configs_go_to_json_and_back():
    for config in (*LANGUAGE_MODELS.values(), *KINDS.values()):
        assert from_dict(LanguageModelConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_rotary_scalings_are_known_by_their_kind():
    """One without was written before there were others than Llama 3.1's."""
    values = to_dict(KINDS["llama_3"])
    del values["rope_scaling"]["kind"]
    assert from_dict(LanguageModelConfig, values) == KINDS["llama_3"]
    with pytest.raises(ValueError, match=r"rope_scaling=.*: want a `kind` among its keys, one of"):
        from_dict(LanguageModelConfig, values | {"rope_scaling": {"kind": "dynamic"}})


def test_every_position_kind_is_tested():
    assert {config.positions for config in KINDS.values()} == {
        "rope",
        "alibi",
        "relative",
        "learned",
    }
