"""BERT: against transformers with copied weights, and what padding must not change."""

import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.contrastive_config import TextTowerConfig
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.text_tower import TextTower
from tests.torch_reference import import_torch

CONFIG = TextTowerConfig(50, num_layers=2, width=16, num_heads=4, ffw_width=32, max_length=12)
TOKENS = np.random.default_rng(0).integers(0, 50, (2, 9)).astype(np.int32)
MASK = np.arange(9) < np.array([[9], [6]])


def test_padding_changes_no_token():
    tower = TextTower(CONFIG, Execution(), rngs=Rngs(0))
    found = tower(jnp.array(TOKENS), jnp.array(MASK))
    short = tower(jnp.array(TOKENS[1:, :6]), jnp.array(MASK[1:, :6]))
    np.testing.assert_allclose(found[1, :6], short[0], atol=1e-6)


def test_every_token_sees_later_ones_too():
    tower = TextTower(CONFIG, Execution(), rngs=Rngs(0))
    other = TOKENS.copy()
    other[0, 8] = (other[0, 8] + 1) % 50
    a, b = (np.asarray(tower(jnp.array(t), jnp.array(MASK))) for t in (TOKENS, other))
    assert (np.abs(a - b).max(-1)[0] > 1e-6).all()


def test_a_text_that_is_too_long_is_refused():
    tower = TextTower(CONFIG, Execution(), rngs=Rngs(0))
    long = jnp.zeros((1, 13), jnp.int32)
    with pytest.raises(ValueError, match=r"13 tokens long: set text.max_length=13"):
        tower(long, jnp.ones((1, 13), bool))


@pytest.mark.reference
def test_states_are_those_of_transformers():
    torch = import_torch()
    transformers = pytest.importorskip("transformers")
    bert = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=32,
            max_position_embeddings=12,
        ),
        add_pooling_layer=False,
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in bert.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        bert.embeddings.token_type_embeddings.weight.zero_()  # ours has none
        want = bert(torch.tensor(TOKENS).long(), torch.tensor(MASK).long()).last_hidden_state
    tower = TextTower(CONFIG, Execution(scan=False), rngs=Rngs(0))
    weights = {name: value.detach().numpy() for name, value in bert.named_parameters()}
    tower.token_embedding[...] = weights["embeddings.word_embeddings.weight"]
    tower.position_embedding[...] = weights["embeddings.position_embeddings.weight"]
    _copy(tower.embedding_norm, weights, "embeddings.LayerNorm", (16,))
    for i in range(2):
        layer, theirs = tower.blocks.layer(i), f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            part = getattr(layer.attention, name)
            _copy(part, weights, f"{theirs}.attention.self.{name}", (16, 4, 4))
        _copy(layer.attention.out, weights, f"{theirs}.attention.output.dense", (4, 4, 16))
        _copy(layer.attention_norm, weights, f"{theirs}.attention.output.LayerNorm", (16,))
        _copy(layer.ffw.up, weights, f"{theirs}.intermediate.dense", (16, 32))
        _copy(layer.ffw.down, weights, f"{theirs}.output.dense", (32, 16))
        _copy(layer.ffw_norm, weights, f"{theirs}.output.LayerNorm", (16,))
    found = tower(jnp.array(TOKENS), jnp.array(MASK))
    np.testing.assert_allclose(np.asarray(found)[MASK], want.numpy()[MASK], atol=1e-5)


def _copy(layer, weights, name, shape):
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    if hasattr(layer, "kernel"):
        layer.kernel[...] = weight.T.reshape(shape)
    else:
        layer.scale[...] = weight
    layer.bias[...] = bias.reshape(layer.bias[...].shape)
