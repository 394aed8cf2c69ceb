"""What lies beside a CLIP tower's weights and contradicts the recipe is refused in one line."""

import dataclasses
import json

import pytest
import safetensors.numpy

from flamingo_jax.config import ImagePreprocessing, VisionConfig
from flamingo_jax.weights.encoders import clip_config
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import checkpoint_files
from flamingo_jax.weights.frozen_parts import Source, load_vision
from tests import tiny_flamingo
from tests.torch_reference import import_torch
from tests.weights.encoders.clip_test import states  # noqa: F401, a fixture: a random CLIP tower

PICTURES = ImagePreprocessing(
    size_px=224,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
B32 = VisionConfig("vit", "vit_b_32", num_features=49, width=768, preprocessing=PICTURES)
L14 = VisionConfig("vit", "vit_l_14", num_features=256, width=1024, preprocessing=PICTURES)
H14 = VisionConfig("vit", "vit_h_14", num_features=256, width=1280, preprocessing=PICTURES)
SIGLIP_B = VisionConfig("vit", "siglip_b_16", num_features=196, width=768)
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


@pytest.mark.parametrize(
    ("kind", "config", "one"),
    [("hf_siglip", L14, "siglip_b_16"), ("hf_clip", SIGLIP_B, "vit_b_32")],
)
def test_a_variant_of_another_network_is_refused_whatever_lies_beside(tmp_path, kind, config, one):
    said = rf"{kind}, and model\.vision\.variant='{config.variant}' is another network: .*{one}"
    with pytest.raises(BadWeightsFile, match=said):
        clip_config.check(tmp_path, kind, config)
