"""IDEFICS from a hand-made folder: what lands where, and what is refused in one line."""

import json

import numpy as np
import pytest

import flamingo_jax
from experiments.configs import finetune
from experiments.frozen import parts
from experiments.published import conversion
from flamingo_jax import same_model
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.flamingos import published
from tests.weights import idefics_files as files

GATED = "model.gated_cross_attn_layers.1"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("idefics")
    files.write(folder / "idefics")
    found = published.from_idefics(folder / "idefics")
    card = conversion.write(found, folder / "model", "float32")
    (folder / "report").write_text("\n".join(conversion.lines(found, card)))
    return folder / "model"


def test_what_lands_where(model_dir):
    model, theirs = flamingo_jax.load(model_dir), files.tensors()
    x = model.config.cross_attention
    assert (x.every, x.offset, x.ffw_width, x.norm) == (2, 0, files.HIDDEN, "rmsnorm")
    assert model.config.vision.num_features == 17
    gated = model.params["gated_xattn"]["groups"]["layers"]
    gate = gated["ffw"]["gate"]["kernel"][1]
    np.testing.assert_array_equal(gate.T, theirs[f"{GATED}.mlp.gate_proj.weight"])
    assert gated["attention_gate"][1] == theirs[f"{GATED}.alpha_cross_attn"][0]
    norm = gated["query_norm"]["scale"][1]
    np.testing.assert_array_equal(norm, theirs[f"{GATED}.cross_attn.q_layer_norm.weight"])
    new = model.params["new_tokens"]
    np.testing.assert_array_equal(new["head"], theirs["lm_head.additional_fc.weight"])
    t = model.tokenizer
    assert (t.around_image_id, t.image_id, t.end_of_chunk_id) == (257, 258, 259)
    assert t.encode("<image>") != [t.image_id]
    assert t.decode(t.encode("naïve <image>")) == "naïve <image>"


def test_report(model_dir):
    report = (model_dir.parent / "report").read_text()
    for line in (
        "19  resampler",
        "26  2 gated blocks",
        "2  tables of new tokens' rows",
        "6  not needed: buffers",
        "0  unexpected",
        "3  rows of new tokens: 257 <fake_token_around_image>, 258 <image>, 259 <EOC>",
    ):
        assert line in report


def test_the_recipe_that_trains_on_from_it_has_its_tokens(model_dir):
    recipe = finetune.get_config(str(model_dir))
    card = parts.model_card(recipe)
    same_model.check(recipe.init_from, card)
    tokenizer = parts.tokenizer(card, recipe.init_from)
    assert tokenizer.image_tag([]) == [257, 258, 257]
    assert tokenizer.chunk_end == [259]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{GATED}.alpha_dense"), f"missing {GATED}.alpha_dense: fetch the folder"),
        (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), "no tensor layers.1.mlp.up_proj"),
        (lambda t: t.update({f"{GATED}.more": np.zeros(1)}), f"unexpected {GATED}.more"),
        (lambda t: t.update({"model.more": np.zeros(1)}), "1 tensors have no place.*: more"),
        (
            lambda t: t.update({f"{GATED}.mlp.up_proj.weight": np.zeros((21, 16))}),
            f"of another shape {GATED}.mlp.up_proj.weight for gated_xattn/.*/ffw/up/kernel",
        ),
        (
            lambda t: t.pop("model.vision_model.embeddings.class_embedding"),
            "holds no CLIP image tower",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_one_line(tmp_path, change, message):
    tensors = files.tensors()
    change(tensors)
    files.write(tmp_path, tensors)
    with pytest.raises(BadWeightsFile, match=message) as raised:
        published.from_idefics(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "idefics2"}, "model_type='idefics2': give a folder of IDEFICS v1"),
        ({"use_resampler": False}, "use_resampler=False, only True is supported"),
        ({"cross_layer_interval": 3}, "cross_layer_interval=3, which does not divide"),
        ({"cross_layer_interval": 0}, "cross_layer_interval is 0, want a whole number from 1 on"),
        ({"cross_layer_interval": "2"}, "cross_layer_interval is '2', want a whole number"),
        (
            {"additional_vocab_size": "3"},
            "additional_vocab_size is '3', want a whole number from 1",
        ),
        ({"additional_vocab_size": 0}, "additional_vocab_size is 0, want a whole number from 1 on"),
        ({"additional_vocab_size": 10**18}, "names no token 260, and the model has rows for 257"),
        ({"perceiver_config": 3}, "perceiver_config is 3, want an object"),
        (
            {"perceiver_config": {"resampler_depth": [6]}},
            r"perceiver_config\.resampler_depth is \[6\], want a whole number from 1 on: fetch",
        ),
        ({"qk_layer_norms": "yes"}, "qk_layer_norms is 'yes', want true or false"),
        ({"hidden_size": "16"}, r"/config\.json: hidden_size is '16', want a whole number from 1"),
        ({"rms_norm_eps": None}, "rms_norm_eps is None, want a number"),
        ({"additional_vocab_size": 4}, "names no token 260, and the model has rows for 257 to 260"),
    ],
)
def test_a_config_of_something_else_is_one_line(tmp_path, changes, message):
    files.write(tmp_path, **changes)
    with pytest.raises(BadWeightsFile, match=message):
        published.from_idefics(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", r"config\.json is damaged \(it holds a list"), (None, r"config\.json is missing")],
)
def test_a_config_that_cannot_be_read_is_one_line(tmp_path, content, message):
    files.write(tmp_path)
    (tmp_path / "config.json").unlink()
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadWeightsFile, match=message):
        published.from_idefics(tmp_path)


def test_damaged_shards_and_missing_files(tmp_path):
    files.write(tmp_path)
    shard = tmp_path / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(BadWeightsFile, match=r"00002-of-00002\.safetensors is damaged"):
        published.from_idefics(tmp_path)
    shard.unlink()
    with pytest.raises(BadWeightsFile, match="not a whole CLIP image tower"):
        published.from_idefics(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps([]))
    with pytest.raises(BadWeightsFile, match=r"tokenizer\.json is damaged"):
        published.from_idefics(tmp_path)
