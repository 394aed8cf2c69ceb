"""experiments.export to IDEFICS: the folder comes back with what was trained in it."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from experiments import cli
from experiments.published import conversion, export_formats
from flamingo_jax import model_directory
from flamingo_jax.weights.files import checkpoint_files, tensor_shards, torch_checkpoint_writer
from flamingo_jax.weights.flamingos import idefics_export, published
from flamingo_jax.weights.frozen_parts import Source
from tests.experiments import prompt_files
from tests.weights import idefics_files as files

TRAINED = (
    "model.perceiver_resampler.",
    "model.gated_cross_attn_layers.",
    "model.embed_tokens.additional_embedding.",
    "lm_head.additional_fc.",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    files.write(folder / "idefics")
    for name, text in {
        "generation_config.json": "{}",
        "preprocessor_config.json": '{"image_size": 32}',
        "tokenizer.chat.jinja": "",
        "model.safetensors.index.json": json.dumps({"weight_map": {"a": "not-this.safetensors"}}),
        "README.md": "of another model",
    }.items():
        (folder / "idefics" / name).write_text(text)
    conversion.write(published.from_idefics(folder / "idefics"), folder / "model", "bfloat16")
    return folder


def to_idefics(model, out):
    """The tensors that are written."""
    export_formats.to_idefics(model, model_directory.read_card(model), out)
    return checkpoint_files.tensors(out)


def test_there_and_back_no_number_has_changed(folder, tmp_path):
    out = tmp_path / "out"
    done = prompt_files.run(
        "experiments.export", f"--model={folder / 'model'}", "--format=idefics", f"--out={out}"
    )
    assert done.returncode == 0, done.stderr
    want, found = files.tensors(), checkpoint_files.tensors(out)
    assert f"{len(want)} tensors written to {out}" in done.stdout
    assert f"IdeficsForVisionText2Text.from_pretrained('{out}')" in done.stdout
    assert {*found} == {*want}
    for name, tensor in want.items():
        np.testing.assert_array_equal(found[name], tensor, name)
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
    copied = {"config.json", "generation_config.json", "preprocessor_config.json"}
    copied |= {"tokenizer.json", "tokenizer.chat.jinja"}
    assert {path.name for path in out.iterdir()} == copied | {"model.safetensors"}
    for name in copied:
        assert (out / name).read_bytes() == (folder / "idefics" / name).read_bytes()
    again, card = published.from_idefics(out), model_directory.read_card(folder / "model")
    assert again.conversion.config == card.config


def trained_on(folder, run, dtype):
    """The workdir of a run whose numbers are all others."""
    model = folder / "model"
    card, tokenizer = (
        read(model) for read in (model_directory.read_card, model_directory.read_tokenizer)
    )
    params = jax.tree.map(lambda x: x.astype(dtype) + 1, model_directory.trained_params(model))
    model_directory.save(run / "model", card, tokenizer, params)
    return run


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_was_trained_is_in_its_place_and_nothing_else_is(folder, tmp_path, dtype, monkeypatch):
    monkeypatch.setattr(tensor_shards, "MAX_BYTES", 30_000)
    found = to_idefics(trained_on(folder, tmp_path / "run", dtype), tmp_path / "out")
    want = files.tensors()
    assert {*found} == {*want}
    assert len([*(tmp_path / "out").glob("model-*.safetensors")]) > 3
    for name, tensor in want.items():
        trained = name.startswith(TRAINED) and not name.endswith("inv_freq")
        more = tensor.astype(dtype) + 1 if trained else tensor
        np.testing.assert_array_equal(found[name], more, name)
        assert (found[name].dtype, found[name].shape) == (more.dtype, more.shape), name


def test_a_folder_of_torch_files_comes_back_as_safetensors(tmp_path):
    """As IDEFICS was saved before transformers preferred the other."""
    folder, want = tmp_path / "idefics", files.tensors()
    files.write(folder, want)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    torch_checkpoint_writer.save_state_dict(folder / "pytorch_model.bin", want.items())
    conversion.write(published.from_idefics(folder), tmp_path / "model", "float32")
    found = to_idefics(tmp_path / "model", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*model*")] == ["model.safetensors"]
    assert {*found} == {*want}
    for name, tensor in want.items():
        np.testing.assert_array_equal(found[name], tensor, name)


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("resampler", "num_latents", 4, "resampler.num_latents=4: the IDEFICS in .* with 3, and"),
        ("resampler", "activation", "gelu", "resampler.activation=gelu: .* computes with relu"),
        ("cross_attention", "every", 1, "cross_attention.every=1: .* computes with 2, and nothing"),
        ("cross_attention", "gating", "none", "cross_attention.gating=none: .* with tanh"),
        ("cross_attention", "gate_per_channel", True, "gate_per_channel=True: .* with False"),
        ("language_model", "norm_eps", 1e-5, "language_model.norm_eps=1e-05: .* with 1e-06"),
        ("vision", "keep_class_token", False, "vision.keep_class_token=False: .* with True"),
    ],
)
def test_a_model_that_idefics_does_not_compute_is_refused(folder, part, field, value, message):
    card = model_directory.read_card(folder / "model")
    tokenizer = model_directory.read_tokenizer(folder / "model")
    theirs = checkpoint_files.tensors(folder / "idefics")
    idefics_export.check(card.config, tokenizer, folder / "idefics", theirs)
    changed = dataclasses.replace(getattr(card.config, part), **{field: value})
    config = dataclasses.replace(card.config, **{part: changed})
    with pytest.raises(ValueError, match=message) as raised:
        idefics_export.check(config, tokenizer, folder / "idefics", theirs)
    assert "\n" not in str(raised.value)


def test_other_tokens_are_refused(folder):
    card = model_directory.read_card(folder / "model")
    own = model_directory.read_tokenizer(folder / "model")
    theirs = checkpoint_files.tensors(folder / "idefics")
    for names, starts_with_bos, message in (
        (
            ("<image>", "<fake_token_around_image>", "<EOC>"),
            True,
            r"new tokens \['<image>', .* has",
        ),
        (own.new_tokens, False, "begins without <s>: IDEFICS's processor writes it"),
    ):
        other = own.with_conventions(names, starts_with_bos=starts_with_bos)
        with pytest.raises(ValueError, match=message):
            idefics_export.check(card.config, other, folder / "idefics", theirs)


@pytest.mark.parametrize(
    ("part", "source", "message"),
    [
        ("vision", Source("hf_clip", "/data/clip"), "and hf_clip:/data/clip: only a model"),
        ("language_model", Source("random"), "its frozen parts are random and hf_clip:/"),
    ],
)
def test_frozen_parts_of_other_folders_are_refused(folder, tmp_path, part, source, message):
    card = model_directory.read_card(folder / "model")
    card = dataclasses.replace(card, **{part: source})
    with pytest.raises(cli.UserError, match=message):
        export_formats.to_idefics(folder / "model", card, tmp_path / "out")
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_changed_or_is_gone_is_refused(folder, tmp_path):
    files.write(tmp_path / "idefics")
    conversion.write(published.from_idefics(tmp_path / "idefics"), tmp_path / "model", "float32")
    shard = tmp_path / "idefics" / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    with pytest.raises(cli.UserError, match=r"has SHA-256 .*, the model was made with"):
        to_idefics(tmp_path / "model", tmp_path / "out")
    for file in (tmp_path / "idefics").iterdir():
        file.unlink()
    (tmp_path / "idefics").rmdir()
    with pytest.raises(cli.UserError, match="idefics is missing: bring it from where it came"):
        to_idefics(tmp_path / "model", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_full_disk_leaves_nothing(folder, tmp_path, monkeypatch):
    def full(path: pathlib.Path, *args, **kwargs):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(tensor_shards.tensor_file, "save", full)
    with pytest.raises(OSError, match="No space left"):
        to_idefics(folder / "model", tmp_path / "out")
    assert not [*tmp_path.iterdir()]
