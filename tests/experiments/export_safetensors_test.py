"""experiments.export to plain safetensors: every parameter under its name, for anyone to read."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors
from flax import traverse_util

import flamingo_jax
from experiments import cli
from experiments.published import conversion, export_formats
from flamingo_jax import model_directory
from flamingo_jax.core.stack import unroll
from flamingo_jax.model_directory import ModelDirectoryError
from flamingo_jax.weights.files import tensor_shards
from flamingo_jax.weights.files.layer_stack import LayerStack
from flamingo_jax.weights.flamingos import published
from tests.experiments import prompt_files
from tests.weights import idefics_files, open_flamingo_files


def read(folder):
    """All tensors, by the safetensors package alone."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(file, "np") as opened:
            for name in opened.keys():  # noqa: SIM118, it is no dict
                assert name not in found
                found[name] = opened.get_tensor(name)
    return found


def check_same(found, model):
    """As in a model directory: what was trained in its own dtype, the rest as in memory."""

    def leaves(params):  # under the names of layers that lie apart
        return traverse_util.flatten_dict(jax.device_get(unroll(params)), sep="/")

    dtype = model_directory.read_card(model).dtypes.trainable
    trained = jax.tree.map(lambda x: x.astype(dtype), model_directory.trained_params(model))
    want = leaves(flamingo_jax.load(model).params) | leaves(trained)
    assert {*found} == {*want}
    for name, leaf in want.items():
        np.testing.assert_array_equal(found[name], leaf, name)
        assert (found[name].dtype, found[name].shape) == (leaf.dtype, leaf.shape), name


def test_the_micro_model_is_read_leaf_by_leaf(micro_model_dir, tmp_path):
    out = tmp_path / "out"
    done = prompt_files.run(
        "experiments.export", f"--model={micro_model_dir}", "--format=safetensors", f"--out={out}"
    )
    assert done.returncode == 0, done.stderr
    found = read(out)
    check_same(found, micro_model_dir)
    trained = sum(name.startswith(("resampler", "gated", "new_tokens")) for name in found)
    assert f"{len(found)} tensors written to {out}, {trained} of them trained" in done.stdout
    for name in ("model.json", "tokenizer/special_tokens.json"):
        assert (out / name).read_bytes() == (micro_model_dir / name).read_bytes()


@pytest.fixture(scope="module", params=["open_flamingo", "idefics"])
def by_source(request, tmp_path_factory):
    """A model whose frozen parts lie elsewhere, in bfloat16."""
    folder = tmp_path_factory.mktemp("by_source")
    if request.param == "idefics":
        idefics_files.write(folder / "published")
        found = published.from_idefics(folder / "published")
    else:
        (folder / "published").mkdir()
        open_flamingo_files.write(folder / "published")
        found = published.from_open_flamingo(
            *(folder / "published" / name for name in ("checkpoint.safetensors", "lm", "clip"))
        )
    conversion.write(found, folder / "model", "bfloat16")
    return folder


def test_frozen_parts_from_their_sources_in_files_of_bounded_size(by_source, tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_shards, "MAX_BYTES", 30_000)
    model, out = by_source / "model", tmp_path / "out"
    card = model_directory.read_card(model)
    export_formats.to_safetensors(model, card, out)
    found = read(out)
    check_same(found, model)
    assert {str(found[n].dtype) for n in found if n.startswith("language_model")} == {"bfloat16"}
    assert {str(found[n].dtype) for n in found if n.startswith("resampler")} == {"float32"}
    places = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    assert {*places} == {*found}
    assert len({*places.values()}) > 3
    trained = {file for name, file in places.items() if not name.startswith(("vision", "language"))}
    frozen = {file for name, file in places.items() if name.startswith(("vision", "language"))}
    assert trained.isdisjoint(frozen)
    assert max(trained) < min(frozen)


def test_it_is_a_model_directory_that_needs_no_other_file(by_source, tmp_path):
    """Opened, begun from and exported again while what it was made of is away."""
    model, out = by_source / "model", tmp_path / "out"
    card = model_directory.read_card(model)
    export_formats.to_safetensors(model, card, out)
    want = flamingo_jax.load(model)
    before = model_directory.trained_params(model)
    moved = by_source / "published"
    moved.rename(by_source / "away")
    try:
        found = flamingo_jax.load(out)
        jax.tree.map(np.testing.assert_array_equal, found.params, want.params)
        assert found.tokenizer.new_tokens == want.tokenizer.new_tokens
        assert model_directory.has_frozen(out)
        for leaf in jax.tree.leaves(model_directory.read_params(out)):
            assert isinstance(leaf, np.memmap | LayerStack)  # that are read where they are used
        jax.tree.map(np.testing.assert_array_equal, model_directory.trained_params(out), before)
        export_formats.to_safetensors(out, card, tmp_path / "again")
    finally:
        (by_source / "away").rename(moved)
    assert {*read(tmp_path / "again")} == {*read(out)}
    check_same(read(tmp_path / "again"), model)


def test_what_is_missing_is_one_line_and_no_folder(by_source, tmp_path):
    model = shutil.copytree(by_source / "model", tmp_path / "model")
    shutil.rmtree(model / "tokenizer")
    done = prompt_files.run(
        "experiments.export",
        f"--model={model}",
        "--format=safetensors",
        f"--out={tmp_path / 'out'}",
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "no tokenizer can be read there" in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("to", export_formats.FORMATS)
def test_a_model_that_diverged_is_not_exported(by_source, tmp_path, to):
    model, card = by_source / "model", model_directory.read_card(by_source / "model")
    own = jax.tree.map(np.array, model_directory.trained_params(model))
    own["resampler"]["latents"][0, 1] = np.inf
    tokenizer = model_directory.read_tokenizer(model)
    model_directory.save(tmp_path / "model", card, tokenizer, own)
    with pytest.raises((ModelDirectoryError, cli.UserError)) as raised:
        export_formats.FORMATS[to](tmp_path / "model", card, tmp_path / "out")
    ours = "idefics" if card.config.vision.keep_class_token else "open_flamingo"
    diverged = "weight resampler/latents is a tensor with NaN or infinite numbers" in str(
        raised.value
    )
    assert diverged == (to in (ours, "safetensors"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
