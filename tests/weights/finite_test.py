"""NaN, infinite numbers and integers in a published tensor: refused by its name as it is read."""

import jax.numpy as jnp
import numpy as np
import pytest

import flamingo_jax
from experiments.published import conversion
from flamingo_jax.weights import finite
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.flamingos import published
from tests.weights import idefics_files, open_flamingo_files

GATED = "model.gated_cross_attn_layers.1"
THEIRS = "lang_encoder.transformer.blocks.3.gated_cross_attn_layer"
TABLE = "lang_encoder.transformer.wte.weight"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_largest_number_is_finite_and_the_next_is_not(dtype):
    dtype = jnp.dtype(dtype)
    largest = np.full((3, 700_000), jnp.finfo(dtype).max, dtype)
    for numbers in (largest, -largest.T, largest[:, ::2], largest[0, 0]):
        finite.check("all", numbers)
    for value in (np.nan, np.inf, -np.inf):
        numbers = largest.T[::-1]
        numbers[1, 2] = value
        with pytest.raises(BadWeightsFile, match="all: a tensor with NaN or infinite numbers: f"):
            finite.check("all", numbers)
        finite.check("others", numbers[2:])
    finite.check("none", largest[:0])


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_integers_are_no_weights(dtype):
    with pytest.raises(BadWeightsFile, match=r"ids: a tensor of .* in the place of floats: fetch"):
        finite.check("ids", np.zeros(3, dtype))


def spoilt(tensors, name, value):
    tensors[name] = tensors[name].copy()
    tensors[name].flat[-1] = value
    return tensors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{GATED}.mlp.up_proj.weight", f"with NaN or infinite numbers {GATED}.mlp.up_proj.weight"),
        ("model.perceiver_resampler.latents", "numbers model.perceiver_resampler.latents: fetch"),
        ("lm_head.additional_fc.weight", r"numbers lm_head.additional_fc.weight: fetch"),
        ("model.embed_tokens.weight", "embedding: a tensor with NaN or infinite numbers"),
    ],
)
def test_in_idefics(tmp_path, name, message):
    idefics_files.write(tmp_path, spoilt(idefics_files.tensors(), name, np.nan))
    with pytest.raises(BadWeightsFile, match=message) as raised:
        published.from_idefics(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "model.layers.2.mlp.up_proj.weight",
            "/model: ffw/up/kernel of layer 2: a tensor with NaN",
        ),
        ("model.vision_model.encoder.layers.1.mlp.fc1.bias", "numbers encoder.layers.1.mlp.fc1.b"),
    ],
)
def test_in_a_frozen_part_when_the_model_is_opened(tmp_path, name, message):
    idefics_files.write(tmp_path / "model", spoilt(idefics_files.tensors(), name, np.inf))
    found = published.from_idefics(tmp_path / "model")
    conversion.write(found, tmp_path / "converted", "bfloat16")
    with pytest.raises(BadWeightsFile, match=message):
        flamingo_jax.load(tmp_path / "converted")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (f"{THEIRS}.ff_gate", np.nan, "with NaN or infinite numbers gated.3.ff_gate: fetch the"),
        (TABLE, np.inf, "safetensors: new rows of the embedding: a tensor with NaN or infinite"),
    ],
)
def test_in_open_flamingo(tmp_path, name, value, message):
    open_flamingo_files.write(tmp_path, spoilt(open_flamingo_files.checkpoint(), name, value))
    with pytest.raises(BadWeightsFile, match=message):
        convert(tmp_path)


def test_in_a_table_that_open_flamingo_repeats(tmp_path):
    tensors = open_flamingo_files.checkpoint()
    tensors[TABLE][7, 3] = np.nan
    open_flamingo_files.write(tmp_path, tensors)
    with pytest.raises(BadWeightsFile, match="row 7 has NaN or infinite numbers, here or in the"):
        convert(tmp_path)


def test_integers_in_open_flamingo(tmp_path):
    tensors = open_flamingo_files.checkpoint()
    tensors["perceiver.latents"] = tensors["perceiver.latents"].astype(np.int32)
    open_flamingo_files.write(tmp_path, tensors)
    with pytest.raises(BadWeightsFile, match=r"of int32 in the place of floats perceiver\.latents"):
        convert(tmp_path)


def convert(folder):
    return published.from_open_flamingo(
        folder / "checkpoint.safetensors", folder / "lm", folder / "clip"
    )
