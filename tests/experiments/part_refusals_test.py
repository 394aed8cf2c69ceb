"""experiments.convert of a part that is none, or not whole: one line, and nothing is left."""

import json
import re

import numpy as np
import pytest

from experiments.published import part_conversion
from flamingo_jax.weights.errors import BadWeightsFile
from tests.weights import published_parts as files

FIRST = {
    "hf_lm": "model.layers.3.mlp.up_proj.weight",
    "gguf": "blk.3.ffn_norm.weight",
    "hf_clip": "vision_model.encoder.layers.1.mlp.fc1.weight",
    "hf_siglip": "vision_model.encoder.layers.1.mlp.fc1.weight",
    "open_clip": "visual.transformer.resblocks.1.mlp.c_fc.weight",
    "timm_nfnet": "stages.1.1.conv2.weight",
    "haiku_nfnet": "NFNet/~/nf_block_2/~/conv1:w",
    "efficientnet_lite": "_blocks.1._bn0.running_mean",
}


@pytest.mark.parametrize("kind", files.FORMATS)
@pytest.mark.parametrize("problem", ["nan", "missing", "unexpected", "a number alone", "cut"])
def test_a_part_that_is_not_whole_is_one_line_and_no_folder(tmp_path, kind, problem):
    tensors, name = dict(files.FORMATS[kind][0]()), FIRST[kind]
    named_by_ours = {"hf_lm": "ffw/up/kernel of layer 3", "gguf": "ffw_norm/scale of layer 3"}
    if problem == "missing":
        del tensors[name]
    elif problem == "unexpected":
        name = "a.b:extra"
        tensors[name] = np.zeros(32, np.float32)
    elif problem == "a number alone":
        if kind == "gguf":
            pytest.skip("its writer writes none")
        tensors[name] = np.zeros((), np.float32)
    elif problem == "cut":
        tensors[name] = tensors[name][:-1]
        name = named_by_ours.get(kind, name)
    else:
        tensors[name] = tensors[name].copy()
        tensors[name].flat[5] = np.nan
        name = named_by_ours.get(kind, name)
    path = files.write(kind, tmp_path, tensors)
    with pytest.raises(BadWeightsFile) as raised:
        part_conversion.convert(kind, path, tmp_path / "out", "float32")
    assert str(raised.value).startswith(f"{path}: ")
    prefix = {
        "hf_lm": "model.",
        "hf_clip": "vision_model.",
        "hf_siglip": "vision_model.",
        "open_clip": "visual.",
    }
    assert name.removeprefix(prefix.get(kind, "")) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert {p.name for p in tmp_path.iterdir()} == {path.name}


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("hf_clip", "vision_model.embeddings.position_embedding.weight", "not a whole CLIP image"),
        ("efficientnet_lite", "_blocks.0._project_conv.weight", r"blocks .* of widths \[0, "),
    ],
)
def test_a_number_in_the_place_of_what_gives_away_the_variant(tmp_path, kind, name, message):
    tensors = files.FORMATS[kind][0]() | {name: np.zeros((), np.float32)}
    path = files.write(kind, tmp_path, tensors)
    with pytest.raises(BadWeightsFile, match=f"{path}: .*{message}"):
        part_conversion.convert(kind, path, tmp_path / "out", "float32")


@pytest.mark.parametrize(
    ("kind", "file", "values", "message"),
    [
        (
            "hf_lm",
            "config.json",
            {"num_key_value_heads": 3},
            "config.json of llama: language_model",
        ),
        ("hf_lm", "config.json", {"rms_norm_eps": -1e-5}, "rms_norm_eps is -1e-05, want a number"),
        ("hf_lm", "config.json", {"rope_theta": 1e999}, "rope_theta is inf, want a number above 0"),
        (
            "hf_clip",
            "preprocessor_config.json",
            {"image_std": [0, 0, 0]},
            "std=(0, 0, 0): use",
        ),
        (
            "hf_clip",
            "preprocessor_config.json",
            {"image_mean": [1e999, 0, 0]},
            "want three",
        ),
    ],
)
def test_a_setting_that_no_model_has_is_named_with_its_folder(
    tmp_path, kind, file, values, message
):
    path = files.write(kind, tmp_path)
    (path / file).write_text(json.dumps((files.LLAMA if kind == "hf_lm" else {}) | values))
    with pytest.raises(BadWeightsFile, match=re.escape(message)) as raised:
        part_conversion.convert(kind, path, tmp_path / "out", "float32")
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize(
    ("kind", "of", "message"),
    [
        ("hf_clip", "open_clip", "is of the format open_clip: give --source=open_clip"),
        ("open_clip", "hf_clip", "is of the format hf_clip: give --source=hf_clip"),
        (
            "timm_nfnet",
            "hf_clip",
            r"0 tensors have names that end in \.skipinit_gain",
        ),
        ("haiku_nfnet", "timm_nfnet", "damaged or cut short inside its pickle"),
        ("efficientnet_lite", "timm_nfnet", r"0 blocks .* no EfficientNet-Lite of \['lite0'"),
        ("gguf", "open_clip", "not a GGUF file"),
        ("hf_lm", "hf_clip", "model_type='clip': use one of"),
        ("hf_lm", "gguf", "config.json is missing: give the folder that holds it"),
        ("hf_clip", "gguf", "holds no CLIP|not a torch checkpoint"),
    ],
)
def test_a_part_of_another_format_is_one_line(tmp_path, kind, of, message):
    path = files.write(of, tmp_path)
    with pytest.raises(BadWeightsFile, match=message):
        part_conversion.convert(kind, path, tmp_path / "out", "float32")
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("kind", files.FORMATS)
def test_a_path_that_is_not_there_is_one_line(tmp_path, kind):
    with pytest.raises(BadWeightsFile, match="nothing"):
        part_conversion.convert(kind, tmp_path / "nothing", tmp_path / "out", "float32")


def test_a_language_model_without_a_tokenizer_is_refused(tmp_path):
    path = files.write("hf_lm", tmp_path)
    (path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"no tokenizer can be read there .* want tokenizer.json"):
        part_conversion.convert("hf_lm", path, tmp_path / "out", "float32")
    assert not (tmp_path / "out").exists()
