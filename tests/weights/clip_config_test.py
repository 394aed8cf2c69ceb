"""What lies beside a CLIP tower's weights and contradicts the recipe is refused in one line."""

import dataclasses
import json

import pytest
import safetensors.numpy

from flamingo_jax.config import ImagePreprocessing, VisionConfig
from flamingo_jax.weights import checkpoint_files, clip_config
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.frozen_parts import Source, load_vision
from tests import tiny_flamingo
from tests.torch_reference import import_torch
from tests.weights.clip_test import states  # noqa: F401, a fixture: a random CLIP tower

PICTURES = ImagePreprocessing(
    size_px=224,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
B32 = VisionConfig("vit", "vit_b_32", num_features=49, width=768, preprocessing=PICTURES)
L14 = VisionConfig("vit", "vit_l_14", num_features=256, width=1024, preprocessing=PICTURES)
H14 = VisionConfig("vit", "vit_h_14", num_features=256, width=1280, preprocessing=PICTURES)
THIN = VisionConfig(
    "vit",
    "thin",
    num_features=16,
    width=32,
    preprocessing=dataclasses.replace(PICTURES, size_px=32),
)

# As the publishers have them: of OpenAI's ViT-L/14 all that is not transformers' default.
OPENAI_L14 = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
}
LAION_L14 = OPENAI_L14 | {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "image_size": 224}
IDEFICS = {"embed_dim": 1280, "vision_model_name": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"}
OPEN_L14 = {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14}
OPEN_H14 = {"layers": 32, "width": 1280, "head_width": 80, "patch_size": 14}
PREPROCESSOR = {
    "image_mean": list(PICTURES.mean),
    "image_std": list(PICTURES.std),
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "size": {"shortest_edge": 256},
}


def write(folder, **files):
    """`config={...}` as config.json, and so on."""
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


def refusal(folder, kind, config) -> str:
    with pytest.raises(BadWeightsFile) as raised:
        clip_config.check(folder, kind, config)
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix(f"{folder}/")


THIN_BESIDE = {
    "hf_clip": {
        "config": {
            "model_type": "clip",
            "vision_config": {
                "hidden_size": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "patch_size": 8,
                "image_size": 32,
                "hidden_act": "gelu",
            },
        }
    },
    "open_clip": {
        "open_clip_config": {
            "model_cfg": {
                "vision_cfg": {
                    "image_size": 32,
                    "layers": 3,
                    "width": 32,
                    "head_width": 8,
                    "patch_size": 8,
                }
            }
        }
    },
}


@pytest.mark.parametrize("named", ["folder", "file"])
@pytest.mark.parametrize("kind", ["hf_clip", "open_clip"])
def test_a_tower_of_another_activation_is_loaded_only_with_that(
    kind,
    named,
    states,  # noqa: F811
    tmp_path,
):
    write(tmp_path, **THIN_BESIDE[kind])
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(states[kind == "open_clip"], file)
    path = tmp_path if named == "folder" else file
    source = Source(kind, str(path), checkpoint_files.sha256(path))
    config = dataclasses.replace(tiny_flamingo.CONFIG, vision=THIN)
    with pytest.raises(BadWeightsFile, match=r"activation=gelu .* set model\.vision\.activation="):
        load_vision(source, config)
    gelu = dataclasses.replace(THIN, activation="gelu")
    assert "encoder" in load_vision(source, dataclasses.replace(config, vision=gelu))


def test_laions_tower_is_not_openais(tmp_path):
    write(tmp_path, config={"model_type": "clip", "vision_config": LAION_L14})
    assert refusal(tmp_path, "hf_clip", L14) == (
        "config.json has activation=gelu (hidden_act), the config asks for quick_gelu: "
        "set model.vision.activation=gelu, or name other weights"
    )
    clip_config.check(tmp_path, "hf_clip", dataclasses.replace(L14, activation="gelu"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu_new"}, "activation=gelu_new .* no other activation, so name"),
        ({"layer_norm_eps": 1e-6}, "norm_eps=1e-06 .* for 1e-05: .* no other norm_eps, so name"),
        ({"image_size": 336}, r"size_px=336 .* set model\.vision\.preprocessing\.size_px=336,"),
        ({"num_attention_heads": 8}, r"num_heads=8 \(num_attention_heads\), .* for 16: no variant"),
        ({"patch_size": 16}, r"patch_px=16 \(patch_size\), the config asks for 14: no variant"),
        ({"num_hidden_layers": 12}, r"depth=12 \(num_hidden_layers\), the config asks for 24"),
        (
            {"hidden_size": 1280, "num_hidden_layers": 32},
            r"width=1280 \(hidden_size\), .* set model\.vision\.variant=vit_h_14, or",
        ),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_every_key_of_transformers_that_changes_a_feature(alone, change, message, tmp_path):
    tower = OPENAI_L14 | {"model_type": "clip_vision_model"}
    for values in (tower, tower | change):
        whole = values if alone else {"model_type": "clip", "vision_config": values}
        write(tmp_path, config=whole)
        if values is tower:
            clip_config.check(tmp_path, "hf_clip", L14)
    with pytest.raises(BadWeightsFile, match=message):
        clip_config.check(tmp_path, "hf_clip", L14)


def test_a_key_that_is_absent_has_the_default_of_transformers(tmp_path):
    write(tmp_path, config={"model_type": "clip", "vision_config": {}})
    clip_config.check(tmp_path, "hf_clip", B32)
    assert "patch_px=32" in refusal(tmp_path, "hf_clip", L14)
    assert "variant=vit_b_32" in refusal(tmp_path, "hf_clip", L14)
    write(tmp_path, config={"model_type": "idefics", "hidden_size": 8192, "vision_config": IDEFICS})
    clip_config.check(tmp_path, "hf_clip", H14)
    assert "variant=vit_h_14" in refusal(tmp_path, "hf_clip", L14)


def test_the_older_name_of_the_towers_settings_wins(tmp_path):
    both = {"vision_config_dict": LAION_L14, "vision_config": OPENAI_L14}
    write(tmp_path, config={"model_type": "clip"} | both)
    assert "activation=gelu" in refusal(tmp_path, "hf_clip", L14)
    write(tmp_path, config={"model_type": "clip"} | both | {"vision_config_dict": None})
    clip_config.check(tmp_path, "hf_clip", L14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image_mean": [0.5, 0.5, 0.5]},
            r"mean=\(0.5, 0.5, 0.5\) \(image_mean\), .*preprocessing\.mean=\(0.5, 0.5, 0.5\), or",
        ),
        ({"image_std": [0.229, 0.224, 0.225]}, r"image_std.*preprocessing\.std=\(0.229, 0.224, "),
        ({"crop_size": 336}, r"size_px=336 \(crop_size\), the config asks for 224: set"),
        ({"do_center_crop": False}, r"size_px=256 \(size\)"),
    ],
)
def test_pictures_as_the_tower_was_trained_on(change, message, tmp_path):
    rounded = {"image_mean": [0.4815, 0.4578, 0.4082]}
    write(tmp_path, preprocessor_config=PREPROCESSOR | rounded)
    clip_config.check(tmp_path, "hf_clip", L14)
    write(tmp_path, preprocessor_config=PREPROCESSOR | change)
    with pytest.raises(BadWeightsFile, match=message):
        clip_config.check(tmp_path, "hf_clip", L14)


@pytest.mark.parametrize(
    ("model", "preprocess", "message"),
    [
        ({"quick_gelu": False}, {}, r"activation=gelu \(quick_gelu\), .* for quick_gelu: set"),
        ({"vision_cfg": OPEN_L14 | {"image_size": 280}}, {}, r"preprocessing\.size_px=280"),
        ({"vision_cfg": OPEN_L14 | {"head_width": 128}}, {}, r"num_heads=8 \(head_width\), .*16"),
        ({"vision_cfg": OPEN_L14 | {"norm_kwargs": {"eps": 1e-6}}}, {}, r"norm_eps=1e-06 \(norm_"),
        ({"vision_cfg": OPEN_H14}, {}, r"width=1280 .*variant=vit_h_14"),
        ({}, {"mean": [0.5, 0.5, 0.5]}, r"preprocessing\.mean=\(0.5, 0.5, 0.5\), or name other"),
        ({}, {"std": [0.5, 0.5, 0.5]}, r"preprocessing\.std=\(0.5, 0.5, 0.5\), or name other"),
    ],
)
def test_what_open_clip_says(model, preprocess, message, tmp_path):
    same = {"quick_gelu": True, "vision_cfg": OPEN_L14}
    pictures = {"mean": list(PICTURES.mean), "std": list(PICTURES.std)}
    write(tmp_path, open_clip_config={"model_cfg": same, "preprocess_cfg": pictures})
    clip_config.check(tmp_path, "open_clip", L14)
    changed = {"model_cfg": same | model, "preprocess_cfg": pictures | preprocess}
    write(tmp_path, open_clip_config=changed)
    with pytest.raises(BadWeightsFile, match=message):
        clip_config.check(tmp_path, "open_clip", L14)


def test_what_says_nothing_of_a_tower_is_not_compared(tmp_path):
    for kind in ("hf_clip", "open_clip"):
        clip_config.check(tmp_path, kind, L14)
    write(tmp_path, config={"model_type": "llama"}, preprocessor_config={}, open_clip_config={})
    for kind in ("hf_clip", "open_clip"):
        clip_config.check(tmp_path, kind, L14)


def test_a_damaged_config_is_named(tmp_path):
    for content in ("{", "[]"):
        (tmp_path / "config.json").write_text(content)
        assert refusal(tmp_path, "hf_clip", L14).startswith("config.json is damaged")


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


@pytest.mark.reference
def test_defaults_are_those_of_transformers(tmp_path):
    import_torch()
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    for theirs, defaults in (
        (hf.CLIPVisionConfig(), clip_config._HF_DEFAULTS),
        (hf.IdeficsConfig().vision_config, clip_config._IDEFICS_DEFAULTS),
    ):
        assert {key: getattr(theirs, key) for key in defaults} == defaults
    hf.CLIPConfig().save_pretrained(tmp_path)
    hf.CLIPImageProcessor().save_pretrained(tmp_path)
    clip_config.check(tmp_path, "hf_clip", B32)
    assert "preprocessor_config.json" in {file.name for file in tmp_path.iterdir()}
