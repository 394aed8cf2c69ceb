"""experiments.convert on hand-made files: what lands where, and what is refused in one line."""

import dataclasses
import json
import pickle
import re

import jax
import numpy as np
import pytest
import safetensors.numpy

import flamingo_jax
from experiments import cli
from experiments.configs import finetune
from experiments.frozen import parts
from experiments.published import conversion
from flamingo_jax import same_model
from flamingo_jax.config import DTypePolicy, VisionConfig
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.flamingos import open_flamingo, open_flamingo_checkpoint, published
from flamingo_jax.weights.language_models import hf_lm_config
from tests.experiments import prompt_files
from tests.language_model_folder import NUM_IDS
from tests.weights import open_flamingo_files as files

GATED = "lang_encoder.transformer.blocks.1.gated_cross_attn_layer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    files.write(folder)
    return folder


def arguments(folder, **changed):
    values = {
        "source": "open_flamingo",
        "checkpoint": folder / "checkpoint.safetensors",
        "lm": folder / "lm",
        "vision": folder / "clip",
        "out": folder / "model",
    }
    return [f"--{name}={value}" for name, value in (values | changed).items() if value]


def test_a_model_directory_that_can_be_asked(folder, tmp_path):
    done = prompt_files.run(
        "experiments.convert", *arguments(folder, out=tmp_path / "model", dtype="float32")
    )
    assert done.returncode == 0, done.stderr
    for line in (
        "69  resampler",
        "22  2 gated blocks",
        "1  embedding tables",
        "0  unexpected",
        "3  rows of new tokens: 257 <EOC>, 258 <image>, 259 <PAD>",
        "257  rows compared with the language model's own, largest difference 0",
    ):
        assert line in done.stdout
    assert not (tmp_path / "model" / "frozen.safetensors").exists()
    model, theirs = flamingo_jax.load(tmp_path / "model"), files.checkpoint()
    x = model.config.cross_attention
    assert (x.every, x.offset, x.normalize_media, x.activation) == (2, 1, False, "gelu")
    assert (model.config.resampler.num_frames, model.config.vision.preprocessing.fit) == (0, "crop")
    # Blocks 1 and 3: one in the group, one behind it.
    gated = model.params["gated_xattn"]
    keys, values = np.split(theirs[f"{GATED}.attn.to_kv.weight"], 2)
    first = gated["groups"]["layers"]
    for name, want in (("key", keys), ("value", values)):
        kernel = np.asarray(first[name]["kernel"][0]).reshape(files.E, files.INNER)
        np.testing.assert_array_equal(kernel.T, want)
    assert first["attention_gate"].shape == (1,)
    np.testing.assert_array_equal(first["ffw_gate"], theirs[f"{GATED}.ff_gate"])
    last = GATED.replace("blocks.1", "blocks.3")
    np.testing.assert_array_equal(
        gated["rest"]["layers"]["attention_gate"], theirs[f"{last}.attn_gate"]
    )
    np.testing.assert_array_equal(
        model.params["new_tokens"]["embedding"],
        theirs["lang_encoder.transformer.wte.weight"][NUM_IDS:],
    )
    assert len(model.params["language_model"]["embedding"]) == NUM_IDS
    picture = np.zeros((20, 40, 3), np.uint8)
    (scored,) = model.score([[{"image": picture}, {"text": "Output:a"}]])
    assert len(scored.tokens) == len("Output:a")
    assert all(np.isfinite(p) for p in scored.log_probs[1:])


def test_one_line_and_status_2_and_no_folder(folder, tmp_path):
    out = tmp_path / "model"
    done = prompt_files.run("experiments.convert", *arguments(folder, lm=None, out=out))
    assert (done.returncode, done.stdout, out.exists()) == (2, "", False)
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: --lm is missing: ")
    assert "2 gated blocks of width 16 before layers called transformer.blocks" in error


def test_a_folder_that_is_there_is_not_written_to(tmp_path):
    with pytest.raises(cli.UserError, match="is there already: name another folder, or move it"):
        conversion.new_folder(tmp_path)
    assert conversion.new_folder(tmp_path / "new") == tmp_path / "new"


def convert(folder):
    return published.from_open_flamingo(
        folder / "checkpoint.safetensors", folder / "lm", folder / "clip"
    )


@pytest.mark.parametrize("prefix", ["module.", "_fsdp_wrapped_module."])
def test_wrapped_names_and_the_old_layout(tmp_path, prefix):
    tensors = files.checkpoint()
    old = {
        prefix
        + n.replace("transformer.blocks.", "gated_cross_attn_layers.").replace(
            ".gated_cross_attn_layer.", "."
        ): a
        for n, a in tensors.items()
    }
    files.write(tmp_path, old)
    found = convert(tmp_path).conversion
    np.testing.assert_array_equal(
        found.params["gated_xattn"]["groups"]["layers"]["ffw_gate"],
        tensors[f"{GATED}.ff_gate"],
    )


def unfiltered():
    """All that is in memory there: frozen tensors, the tower, and the same under other names."""
    own = files.language_model()
    layers = {n: a for n, a in own.items() if "wte" not in n}
    tensors = files.checkpoint()
    for name, tensor in layers.items():
        wrapped = re.sub(r"(blocks\.\d+)\.", r"\1.decoder_layer.", name)
        tensors[f"lang_encoder.{wrapped}"] = tensor
        if "blocks" in name:
            old = name.replace("transformer.blocks", "old_decoder_blocks")
            tensors[f"lang_encoder.{old}"] = tensor
    for name, tensor in files.checkpoint().items():
        if GATED in name:
            tensors[name.replace(GATED, "lang_encoder.gated_cross_attn_layers.1")] = tensor
    return tensors | files.tower("vision_encoder.")


def test_a_checkpoint_of_everything_is_held_against_the_language_model(tmp_path):
    tensors = unfiltered()
    files.write(tmp_path, tensors)
    found = convert(tmp_path).conversion
    assert found.repeated == len(files.language_model()) - 1
    want = convert_filtered(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found.params, want.params)
    changed = "lang_encoder.transformer.blocks.2.decoder_layer.ffn.up_proj.weight"
    tensors[changed] = tensors[changed] + 1
    files.write_checkpoint(tmp_path, tensors)
    with pytest.raises(BadWeightsFile, match=r"up_proj.weight: row 0 differs from the language"):
        convert(tmp_path)


def convert_filtered(folder):
    files.write_checkpoint(folder, files.checkpoint())
    return convert(folder).conversion


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{GATED}.ff.1.weight"), r"no matrix gated.1.ff.1.weight"),
        (lambda t: t.pop(f"{GATED}.ff_gate"), r"missing gated.1.ff_gate: fetch the file again"),
        (
            lambda t: t.update({"perceiver.frame_embs": np.zeros((8, files.E), np.float32)}),
            r"unexpected perceiver.frame_embs",
        ),
        (
            lambda t: t.update({f"{GATED}.attn.to_out.weight": np.zeros((15, 16), np.float32)}),
            r"of another shape gated.1.attn.to_out.weight for .*/out/kernel",
        ),
        (
            lambda t: t["lang_encoder.transformer.wte.weight"].__setitem__((7, 3), 9.0),
            r"row 7 differs from the language model's own by up to",
        ),
        (lambda t: t.pop("lang_encoder.transformer.wte.weight"), "has no embedding of the"),
        (lambda t: t.pop("perceiver.latents"), "is no checkpoint of OpenFlamingo"),
        (
            lambda t: t.update(
                {n.replace("blocks.3", "blocks.2"): t.pop(n) for n in [*t] if "blocks.3." in n}
            ),
            r"gated blocks of width 16 before layers \[1, 2\], the language model 4 layers",
        ),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_one_line(tmp_path, change, message):
    tensors = files.checkpoint()
    change(tensors)
    files.write(tmp_path, tensors)
    with pytest.raises(BadWeightsFile, match=message) as raised:
        convert(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_model": 32}, r"wte.weight is \[260, 16\], the language model .* is 32 wide"),
        ({"n_layers": 6}, r"before layers \[1, 3\], the language model 6 layers"),
        ({"vocab_size": 256}, "a tokenizer of 257 ids and 256 rows"),
    ],
)
def test_another_language_model_is_refused(tmp_path, change, message):
    files.write(tmp_path)
    (tmp_path / "lm" / "config.json").write_text(json.dumps(files.LM | change))
    with pytest.raises(BadWeightsFile, match=message):
        convert(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{", '"mpt"'])
def test_a_damaged_config_of_the_language_model_is_one_line(tmp_path, content):
    files.write(tmp_path)
    (tmp_path / "lm" / "config.json").write_text(content)
    with pytest.raises(BadWeightsFile, match=r"lm/config\.json is damaged .*: fetch it again"):
        convert(tmp_path)


def test_a_head_of_other_rows_than_the_embedding_is_refused(tmp_path):
    table = "transformer.wte.weight"
    own, tensors = files.language_model(), files.checkpoint()
    tensors["lang_encoder.lm_head.weight"] = tensors[f"lang_encoder.{table}"][:-1]
    files.write(tmp_path, tensors)
    head = {"lm_head.weight": own[table]}
    safetensors.numpy.save_file(own | head, tmp_path / "lm" / "model.safetensors")
    family, lm = hf_lm_config.read_folder(tmp_path / "lm")
    lm = dataclasses.replace(lm, tied_head=False)
    checkpoint = open_flamingo_checkpoint.read(tmp_path / "checkpoint.safetensors")
    thin = VisionConfig("vit", "thin", num_features=16, width=files.E)
    with pytest.raises(BadWeightsFile, match="an embedding of 260 rows and a head of 259: fetch"):
        open_flamingo.convert(checkpoint, tmp_path / "lm", family, lm, NUM_IDS, thin)


def test_another_tower_is_refused(tmp_path):
    files.write(tmp_path)
    (tmp_path / "clip" / "config.json").write_text(
        json.dumps(
            {
                "model_type": "clip_vision_model",
                "hidden_size": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "patch_size": 8,
                "image_size": 32,
                "hidden_act": "gelu",
            }
        )
    )
    with pytest.raises(BadWeightsFile, match="has activation=gelu"):
        convert(tmp_path)
    safetensors.numpy.save_file(files.tower(depth=2), tmp_path / "clip" / "model.safetensors")
    with pytest.raises(BadWeightsFile, match="a tower of 2 layers of width 32 with patches of 8"):
        convert(tmp_path)
    safetensors.numpy.save_file({"a": np.zeros(1)}, tmp_path / "clip" / "model.safetensors")
    with pytest.raises(BadWeightsFile, match="holds no CLIP image tower"):
        convert(tmp_path)


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"perceiver.latents": Evil()}, 2), "no torch magic number|refused"),
        (b"PK\x03\x04 cut short", "damaged zip archive"),
        (b"", "not a torch checkpoint"),
    ],
)
def test_a_damaged_file_and_one_that_runs_code(folder, tmp_path, content, message, capsys):
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(content)
    with pytest.raises(BadWeightsFile, match=message):
        published.from_open_flamingo(file, folder / "lm", folder / "clip")
    assert capsys.readouterr().out == ""


def test_a_missing_tower_is_named(folder):
    with pytest.raises(BadWeightsFile, match=r"--vision is missing: .* features of width 32"):
        published.from_open_flamingo(folder / "checkpoint.safetensors", folder / "lm", None)


def test_a_report_names_parts_by_source_and_hash(folder, tmp_path):
    found = convert(folder)
    card = conversion.write(found, tmp_path / "model", "bfloat16")
    assert card.dtypes.frozen == "bfloat16"
    assert card.language_model.path == str(folder / "lm")
    text = "\n".join(conversion.lines(found, card))
    assert f"absent  image tower thin, 32 px, read from hf_clip:{folder / 'clip'}" in text
    assert card.vision.sha256 in text


def test_a_link_is_named_as_it_is_called(tmp_path):
    """The hub's cache has links to files without an ending, by which a format is known."""
    files.write(tmp_path)
    file = tmp_path / "clip" / "model.safetensors"
    file.rename(tmp_path / "blob")
    file.symlink_to(tmp_path / "blob")
    found = published.from_open_flamingo(tmp_path / "checkpoint.safetensors", tmp_path / "lm", file)
    card = conversion.write(found, tmp_path / "model", "bfloat16")
    assert card.vision.path == str(file)
    flamingo_jax.load(tmp_path / "model")


def test_the_recipe_that_trains_on_from_it_is_the_same_model(folder, tmp_path):
    found = convert(folder)
    written = conversion.write(found, tmp_path / "model", "float32")
    recipe = finetune.get_config(str(tmp_path / "model"))
    card = parts.model_card(recipe)
    same_model.check(recipe.init_from, card)
    assert card.dtypes == written.dtypes == DTypePolicy("float32", "float32", "float32")
    assert (recipe.caption_template, recipe.data.train.pages.p_next) == ("Output:{}", 0.0)
    tokenizer = parts.tokenizer(card, recipe.init_from)
    assert tokenizer.new_tokens == ("<EOC>", "<image>", "<PAD>")
    with pytest.raises(ValueError, match="257 ids and 2 new ones"):
        parts.tokenizer(card)
