"""CLIP image towers under both names; numbers against the references are in tests/models."""

import functools

import jax
import numpy as np
import pytest

from flamingo_jax.core import params
from flamingo_jax.models.vit import ViT
from flamingo_jax.weights.encoders.clip import parameters
from flamingo_jax.weights.errors import BadWeightsFile

from_huggingface = functools.partial(parameters, format="hf_clip", prefix="vision_model.")
from_open_clip = functools.partial(parameters, format="open_clip", prefix="visual.")
WIDTH, HEADS, LAYERS = 32, 4, 3  # of the variant "thin"; patches of 8 px, 4 x 4 of them


RNG = np.random.default_rng(0)


def array(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.fixture
def states():
    """The same random numbers as Hugging Face and as open_clip name them, with what is not ours."""
    hugging_face = {
        "embeddings.class_embedding": array(WIDTH),
        "embeddings.patch_embedding.weight": array(WIDTH, 3, 8, 8),
        "embeddings.position_embedding.weight": array(17, WIDTH),
        "embeddings.position_ids": np.arange(17)[None],
    }
    names = {
        "class_embedding": "embeddings.class_embedding",
        "conv1.weight": "embeddings.patch_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
    }
    for theirs, name in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        for leaf in ("weight", "bias"):
            hugging_face[f"{name}.{leaf}"] = array(WIDTH)
            names[f"{theirs}.{leaf}"] = f"{name}.{leaf}"
    open_clip = {}
    for i in range(LAYERS):
        ours, theirs = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for name, other, sizes in (
            ("layer_norm1", "ln_1", (WIDTH,)),
            ("layer_norm2", "ln_2", (WIDTH,)),
            ("self_attn.out_proj", "attn.out_proj", (WIDTH, WIDTH)),
            ("mlp.fc1", "mlp.c_fc", (4 * WIDTH, WIDTH)),
            ("mlp.fc2", "mlp.c_proj", (WIDTH, 4 * WIDTH)),
        ):
            for leaf, shape in (("weight", sizes), ("bias", sizes[:1])):
                hugging_face[f"{ours}.{name}.{leaf}"] = array(*shape)
                names[f"{theirs}.{other}.{leaf}"] = f"{ours}.{name}.{leaf}"
        for leaf, shape in (("weight", (WIDTH, WIDTH)), ("bias", (WIDTH,))):
            qkv = [array(*shape) for _ in range(3)]
            for letter, value in zip("qkv", qkv, strict=True):
                hugging_face[f"{ours}.self_attn.{letter}_proj.{leaf}"] = value
            open_clip[f"{theirs}.attn.in_proj_{leaf}"] = np.concatenate(qkv)
    open_clip |= {theirs: hugging_face[ours] for theirs, ours in names.items()}
    open_clip["proj"] = array(WIDTH, 16)
    return (
        {f"vision_model.{k}": a for k, a in hugging_face.items()} | {"logit_scale": array()},
        {f"visual.{k}": a for k, a in open_clip.items()} | {"ln_final.weight": array(8)},
    )


@pytest.mark.parametrize("post_norm", [False, True])
def test_both_publishers_give_one_tree_of_the_modules_shapes(states, post_norm):
    hugging_face, open_clip = states
    a = from_huggingface(hugging_face, "thin", post_norm=post_norm)
    b = from_open_clip(open_clip, "thin", post_norm=post_norm)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)
    _, shapes, _ = params.abstract(lambda rngs: ViT("thin", post_norm=post_norm, rngs=rngs))
    assert jax.tree.map(np.shape, a) == jax.tree.map(lambda leaf: leaf.shape, shapes)


def test_heads_are_rows_of_torchs_kernel(states):
    """Row h of head n of q_proj.weight (out, in) is element [:, n, h] of ours."""
    state, _ = states
    query = from_huggingface(state, "thin")["blocks"]["layers"]["attention"]["query"]
    row = state["vision_model.encoder.layers.2.self_attn.q_proj.weight"][3 * 8 + 5]
    np.testing.assert_array_equal(query["kernel"][2, :, 3, 5], row)
    bias = state["vision_model.encoder.layers.2.self_attn.q_proj.bias"]
    assert query["bias"][2, 3, 5] == bias[3 * 8 + 5]


def test_a_prefix_leaves_the_rest_of_a_larger_model_alone(states):
    state = {f"model.{name}": a for name, a in states[0].items()}
    a = from_huggingface(state, "thin", prefix="model.vision_model.")
    jax.tree.map(np.testing.assert_array_equal, a, from_huggingface(states[0], "thin"))


def test_everything_wrong_is_said_at_once(states):
    state = dict(states[1])
    del state["visual.transformer.resblocks.1.attn.in_proj_bias"]
    state["visual.transformer.resblocks.3.ln_1.weight"] = np.zeros(WIDTH)
    state["visual.positional_embedding"] = np.zeros((50, WIDTH), np.float32)
    with pytest.raises(BadWeightsFile) as error:
        from_open_clip(state, "thin")
    message = str(error.value)
    assert "thin under 'visual.': missing transformer.resblocks.1.attn.in_proj_bias;" in message
    assert "unexpected transformer.resblocks.3.ln_1.weight;" in message
    assert "positional_embedding for position_embedding ([50, 32], want [17, 32])" in message


def test_a_wrong_prefix_names_what_was_looked_for(states):
    with pytest.raises(BadWeightsFile, match=r"under 'vision_tower\.': missing embeddings\.cl"):
        from_huggingface(states[0], "thin", prefix="vision_tower.")


def test_other_picture_sizes_have_other_positions(states):
    state = dict(states[0])
    state["vision_model.embeddings.position_embedding.weight"] = array(37, WIDTH)
    tree = from_huggingface(state, "thin", size_px=48)
    assert tree["position_embedding"].shape == (37, WIDTH)
