"""A value beside a CLIP tower's weights that is of no type it can have is named with its key."""

import pytest

from flamingo_jax.weights.encoders import clip_config
from tests.weights.encoders.clip_config_test import (
    L14,
    OPEN_L14,
    OPENAI_L14,
    PREPROCESSOR,
    refusal,
    write,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"hidden_size": "1024"},
            "hidden_size is '1024', want a whole number from 1 on: fetch the",
        ),
        ({"num_hidden_layers": True}, "num_hidden_layers is True, want a whole number from 1"),
        ({"num_attention_heads": None}, "num_attention_heads is None, want a whole number"),
        ({"embed_dim": 0}, "embed_dim is 0, want a whole number from 1 on"),
        ({"patch_size": "14"}, "patch_size is '14', want a size in pixels"),
        ({"image_size": [224, "224"]}, "image_size is [224, '224'], want a size in pixels"),
        ({"image_size": []}, "image_size is [], want a size in pixels"),
        ({"image_size": 1e999}, "image_size is inf, want a size in pixels"),
        ({"hidden_act": 3}, "hidden_act is 3, want a text"),
        ({"layer_norm_eps": "1e-5"}, "layer_norm_eps is '1e-5', want a number"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan, want a number"),
    ],
)
@pytest.mark.parametrize("inside", ["", "vision_config.", "vision_config_dict."])
def test_a_value_of_another_type_is_named_with_its_key(inside, change, message, tmp_path):
    tower = OPENAI_L14 | change
    values = {inside[:-1]: tower} if inside else tower
    kind = {"model_type": "clip" if inside else "clip_vision_model"}
    write(tmp_path, config=values | kind)
    assert refusal(tmp_path, "hf_clip", L14).startswith(f"config.json: {inside}{message}")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "clip", "vision_config": "vit"}, "vision_config is 'vit', want an object"),
        ({"vision_config": [1]}, "vision_config is [1], want an object: fetch the file again"),
        ({"model_type": ["clip"]}, "model_type is ['clip'], want a text"),
    ],
)
def test_sections_of_another_type(values, message, tmp_path):
    write(tmp_path, config=values)
    assert refusal(tmp_path, "hf_clip", L14).startswith(f"config.json: {message}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_mean": 0.5}, "image_mean is 0.5, want three numbers"),
        ({"image_std": [0.5, 0.5]}, "image_std is [0.5, 0.5], want three numbers"),
        ({"image_mean": ["0.5"] * 3}, "image_mean is ['0.5', '0.5', '0.5'], want three numbers"),
        ({"crop_size": {"height": "224"}}, "crop_size is {'height': '224'}, want a size in pixels"),
        ({"do_center_crop": "no"}, "do_center_crop is 'no', want true or false"),
    ],
)
def test_the_preprocessors_types(change, message, tmp_path):
    write(tmp_path, preprocessor_config=PREPROCESSOR | change)
    assert refusal(tmp_path, "hf_clip", L14).startswith(f"preprocessor_config.json: {message}")


def test_a_preprocessor_that_writes_null_says_nothing(tmp_path):
    nothing = dict.fromkeys(("image_mean", "image_std", "crop_size", "do_center_crop"))
    write(tmp_path, preprocessor_config=PREPROCESSOR | nothing | {"size": {"height": 224}})
    clip_config.check(tmp_path, "hf_clip", L14)
    write(tmp_path, preprocessor_config=PREPROCESSOR | {"do_center_crop": None})
    assert "size_px=256 (size)" in refusal(tmp_path, "hf_clip", L14)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"vision_cfg": ["width"]}, "model_cfg.vision_cfg is ['width'], want an object"),
        ({"vision_cfg": {"width": "1024"}}, "model_cfg.vision_cfg.width is '1024', want a whole"),
        ({"vision_cfg": {"head_width": 0}}, "model_cfg.vision_cfg.head_width is 0, want a whole"),
        ({"vision_cfg": {"layers": "24"}}, "model_cfg.vision_cfg.layers is '24', want a whole"),
        ({"vision_cfg": {"norm_kwargs": 1}}, "model_cfg.vision_cfg.norm_kwargs is 1, want an obj"),
        ({"quick_gelu": "true"}, "model_cfg.quick_gelu is 'true', want true or false"),
    ],
)
def test_open_clips_types(model, message, tmp_path):
    write(tmp_path, open_clip_config={"model_cfg": {"vision_cfg": OPEN_L14} | model})
    assert refusal(tmp_path, "open_clip", L14).startswith(f"open_clip_config.json: {message}")
    resnet = {"vision_cfg": OPEN_L14 | {"layers": [3, 4, 6, 3]}}
    write(tmp_path, open_clip_config={"model_cfg": resnet})
    assert "depth=[3, 4, 6, 3] (layers)" in refusal(tmp_path, "open_clip", L14)
