"""experiments.convert of single parts: the published numbers, and folders that a recipe reads."""

import json
import pathlib
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util

from experiments.configs import flamingo
from experiments.frozen import parts
from experiments.planning import summary
from experiments.published import part_conversion
from flamingo_jax import model_directory
from flamingo_jax.config import FlamingoConfig, from_dict, to_dict
from flamingo_jax.core import hosts, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution, plan
from flamingo_jax.models import insertion, vision
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.weights import frozen_parts, stage_folder
from flamingo_jax.weights.encoders import pretrained_encoder
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.language_models import pretrained_lm
from tests.experiments import prompt_files
from tests.weights import published_parts as files

LANGUAGE_MODELS = ("hf_lm", "gguf")
ENCODERS = tuple(kind for kind in files.FORMATS if kind not in LANGUAGE_MODELS)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The path of each part where it was published."""
    folder = tmp_path_factory.mktemp("published")
    return {kind: files.write(kind, folder) for kind in files.FORMATS}


@pytest.fixture(scope="module")
def converted(tmp_path_factory, published):
    """Each of them converted, in float32."""
    folder = tmp_path_factory.mktemp("converted")
    return {
        kind: part_conversion.convert(kind, path, folder / kind, "float32")
        for kind, path in published.items()
    }, folder


def recipe(language_model=None, encoder=None):
    """`micro` on these parts, `FORMAT:PATH`, with the encoder's own config."""
    c = flamingo.get_config("micro")
    if language_model:
        c.frozen.language_model = language_model
    if encoder:
        c.frozen.vision, config = encoder
        with c.ignore_type():
            c.model.vision = to_dict(config)
    return c


def frozen(name, value, config=None):
    """A frozen part as a recipe reads it, a language model in the recipe's segments."""
    source = parts.source(name, value, 0)
    c = recipe(encoder=None if config is None else (value, config))
    model = from_dict(FlamingoConfig, c.model.to_dict())
    if config is not None:
        return frozen_parts.load_vision(source, model)
    segments = insertion.language_model_segments(model)
    return frozen_parts.load_language_model(source, model, segments)


def assert_equal(a, b, dtype=np.float32):
    a, b = (traverse_util.flatten_dict(tree, sep="/") for tree in (a, b))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(np.asarray(a[name]), np.asarray(b[name]), name)
        assert a[name].dtype == dtype


def test_what_can_be_converted_can_be_read_where_it_lies_too():
    assert {*part_conversion.FORMATS} == {*files.FORMATS}
    assert {*LANGUAGE_MODELS} < {*frozen_parts.LANGUAGE_MODEL_FORMATS}
    assert {*ENCODERS} < {*frozen_parts.VISION_FORMATS}


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_a_language_model_is_the_one_that_was_published(published, converted, kind):
    found = frozen("language_model", f"pretrained:{converted[1] / kind}")
    assert_equal(found, frozen("language_model", f"{kind}:{published[kind]}"))
    assert {*found["blocks"]} == {"before", "groups", "rest"}
    cards = [
        parts.model_card(recipe(value))
        for value in (f"pretrained:{converted[1] / kind}", f"{kind}:{published[kind]}")
    ]
    tokenizers = [parts.tokenizer(card) for card in cards]
    for text in ("ab cab", "naïve <|endoftext|>"):
        assert len({tuple(t.encode(text)) for t in tokenizers}) == 1
    for name in ("bos_id", "eos_id", "pad_id", "image_id"):
        assert len({getattr(t, name) for t in tokenizers}) == 1


@pytest.mark.parametrize(
    ("kind", "post_norm"),
    [*((kind, False) for kind in ENCODERS), ("hf_clip", True), ("open_clip", True)],
)
def test_an_encoder_is_the_one_that_was_published(published, converted, kind, post_norm):
    config = converted[0][kind].part.config
    config = from_dict(type(config), to_dict(config) | {"post_norm": post_norm})
    found = frozen("vision", f"pretrained:{converted[1] / kind}", config)
    assert_equal(found, frozen("vision", f"{kind}:{published[kind]}", config))
    shapes = params_lib.abstract(lambda rngs: vision.make_encoder(config, Execution(), rngs=rngs))[
        1
    ]
    assert jax.tree.map(np.shape, found["encoder"]) == jax.tree.map(lambda s: s.shape, shapes)


@pytest.mark.parametrize("kind", files.FORMATS)
def test_bfloat16_is_that_of_float32(published, converted, tmp_path, kind):
    part_conversion.convert(kind, published[kind], tmp_path / "out", "bfloat16")
    whole, half = (stage_folder.read_params(f) for f in (converted[1] / kind, tmp_path / "out"))
    want = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), whole)
    assert_equal(half, want, ml_dtypes.bfloat16)


def test_shards_of_torch_are_the_same_model(published, converted, tmp_path):
    folder = tmp_path / "llama"
    files.write_hf_lm(folder, files.llama())
    (folder / "model.safetensors").unlink()
    names = [*files.llama()]
    for i in range(2):
        shard = {name: files.llama()[name] for name in names[i::2]}
        files.write_torch(folder / f"pytorch_model-0000{i + 1}-of-00002.bin", shard)
    part_conversion.convert("hf_lm", folder, tmp_path / "out", "float32")
    assert_equal(*map(stage_folder.read_params, (tmp_path / "out", converted[1] / "hf_lm")))


def test_a_mesh_gets_the_same_shards(published, converted):
    """Of both parts, from the folders and from where they were published."""
    config = converted[0]["open_clip"].part.config
    folders = {"hf_lm": converted[1] / "hf_lm", "open_clip": converted[1] / "open_clip"}
    own = [f"pretrained:{folder}" for folder in folders.values()]
    theirs = [f"{kind}:{published[kind]}" for kind in folders]
    mesh, placed = partition.make_mesh(2, 4, 1), []
    for language_model, encoder in (own, theirs):
        card = parts.model_card(recipe(language_model, (encoder, config)))
        _, shapes, axes = params_lib.abstract(
            lambda rngs, card=card: Flamingo(card.config, Execution(), rngs=rngs)
        )
        where = params_lib.split(partition.shardings(axes, shapes, mesh))[1]
        placed.append(hosts.place(model_directory.frozen_params(card), where, "bfloat16"))
    cut = 0
    for a, b in zip(*map(jax.tree.leaves, placed), strict=True):
        assert a.sharding == b.sharding
        cut += not a.sharding.is_fully_replicated
        for one, other in zip(a.addressable_shards, b.addressable_shards, strict=True):
            np.testing.assert_array_equal(one.data, other.data)
    assert cut > 10


def test_what_a_folder_holds_and_what_is_said(published, converted):
    done, folder = converted
    text = "\n".join(part_conversion.lines(done["hf_lm"]))
    assert "        56  language model, 6 layers of width 32, 259 rows" in text
    assert "         1  not needed: head, which repeats the embedding" in text
    assert "         1  not needed: buffers" in text
    assert "         0  unexpected" in text
    source = json.loads((folder / "hf_lm" / "source.json").read_text())
    assert source["path"] == str(published["hf_lm"])
    assert source["sha256"] in text
    assert {p.name for p in (folder / "hf_lm").iterdir()} == {
        *("language_model.json", "weights.safetensors", "tokenizer", "source.json")
    }
    text = "\n".join(part_conversion.lines(done["gguf"]))
    assert "absent  as expected: head, which repeats the embedding" in text
    text = "\n".join(part_conversion.lines(done["hf_clip"]))
    assert "55  encoder vit thin" in text
    assert "4  not needed: text tower or projections" in text
    assert "activation quick_gelu" in text
    text = "\n".join(part_conversion.lines(done["open_clip"]))
    assert "1  not needed: projection or buffer" in text
    assert "do not say which activation it has: a recipe's is believed" in text
    text = "\n".join(part_conversion.lines(done["hf_siglip"]))
    assert "53  encoder vit siglip_thin" in text
    assert "11  not needed: projection or buffer" in text
    assert "pictures of 36 px, mean (0.5, 0.5, 0.5)" in text
    assert done["hf_siglip"].part.config.post_norm
    text = "\n".join(part_conversion.lines(done["timm_nfnet"]))
    assert "2  not needed: classifier" in text
    assert "activation gelu" in text


def test_recipes_take_their_config_from_the_folders(converted):
    """And summarize says what they cost."""
    c = recipe()
    folder = converted[1]
    with c.ignore_type():
        c.model.language_model = to_dict(pretrained_lm.read_config(folder / "gguf"))
        c.model.vision = to_dict(pretrained_encoder.read_config(folder / "haiku_nfnet"))
    c.frozen.language_model = f"pretrained:{folder / 'gguf'}"
    c.frozen.vision = f"pretrained:{folder / 'haiku_nfnet'}"
    counts = {k: v["count"] for k, v in summary.summarize(c)["parameters"].items()}
    for name, kind in (("language_model", "gguf"), ("vision", "haiku_nfnet")):
        assert counts[name] == params_lib.count(converted[0][kind].part.params)


def run(kind, path, out, **flags):
    given = {"source": kind, "checkpoint": path, "out": out} | flags
    return prompt_files.run("experiments.convert", *(f"--{k}={v}" for k, v in given.items()))


def test_the_command(published, tmp_path):
    out = tmp_path / "parts" / "f"
    done = run("haiku_nfnet", published["haiku_nfnet"], out)
    assert done.returncode == 0, done.stderr
    assert f"written to {out}, for --config.frozen.vision=pretrained:{out}" in done.stdout
    found = stage_folder.read_params(out)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(ml_dtypes.bfloat16)}
    done = run("hf_lm", published["hf_lm"], tmp_path / "lm", vision=published["hf_clip"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "--vision: --checkpoint of hf_lm is all that is read: leave" in done.stderr


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("timm_nfnet", {"std_conv_eps": None}, "has vision.std_conv_eps=1e-05, the config asks"),
        ("timm_nfnet", {"activation": None}, "has vision.activation='gelu', the config asks for"),
        ("hf_clip", {"activation": "gelu"}, "has vision.activation='quick_gelu', the config asks"),
        ("hf_clip", {"preprocessing.mean": (0.5,) * 3}, r"has vision.preprocessing.mean=\(0.48"),
        (
            "hf_siglip",
            {"variant": "siglip_so400m_14"},
            "has vision.variant='siglip_thin', the",
        ),
        ("hf_clip", {"preprocessing.size_px": 64}, "has positions for 32 px, the config asks for"),
        ("haiku_nfnet", {"variant": "f0"}, "has vision.variant='thin', the config asks for 'f0'"),
    ],
)
def test_another_encoder_than_the_configs_is_refused(converted, kind, change, message):
    values = traverse_util.flatten_dict(to_dict(converted[0][kind].part.config), sep=".") | change
    want = traverse_util.unflatten_dict(values, sep=".")
    want = from_dict(type(converted[0][kind].part.config), want)
    with pytest.raises(BadWeightsFile, match=message):
        pretrained_encoder.load(converted[1] / kind, want)


def test_a_tower_without_its_last_norm_has_none_to_give(tmp_path):
    tensors = {n: a for n, a in files.clip().items() if "post_layernorm" not in n}
    path = files.write("hf_clip", tmp_path, tensors)
    config = part_conversion.convert("hf_clip", path, tmp_path / "out", "float32").part.config
    assert pretrained_encoder.load(tmp_path / "out", config)
    want = from_dict(type(config), to_dict(config) | {"post_norm": True})
    with pytest.raises(BadWeightsFile, match=r"has no last norm: set model\.vision\.post_norm"):
        pretrained_encoder.load(tmp_path / "out", want)


def test_settings_that_change_nothing_in_the_weights_are_the_recipes(converted):
    folder, config = converted[1] / "open_clip", converted[0]["open_clip"].part.config
    for change in ({"activation": "gelu"}, {"keep_class_token": True}):
        want = from_dict(type(config), to_dict(config) | change)
        assert_equal(pretrained_encoder.load(folder, want), pretrained_encoder.load(folder, config))


def test_another_folder_is_named(converted, tmp_path):
    folder = converted[1]
    want = converted[0]["haiku_nfnet"].part.config
    with pytest.raises(BadWeightsFile, match=r"name a folder that experiments\.convert made"):
        pretrained_encoder.load(folder / "gguf", want)
    with pytest.raises(BadWeightsFile, match=r"or one of experiments\.convert"):
        pretrained_lm.read_config(folder / "haiku_nfnet")
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (pretrained_encoder.CONFIG, stage_folder.WEIGHTS):
        data = pathlib.Path(folder / "haiku_nfnet" / name).read_bytes()
        (copy / name).write_bytes(data if name.endswith("json") else data[: len(data) // 2])
    with pytest.raises(BadWeightsFile, match="is damaged"):
        pretrained_encoder.load(copy, want)


def test_weights_of_another_part_beside_a_config_are_refused(converted, tmp_path):
    folder, config = converted[1], converted[0]["haiku_nfnet"].part.config
    for part, of in (("haiku_nfnet", "hf_clip"), ("gguf", "haiku_nfnet")):
        shutil.copytree(folder / part, tmp_path / part)
        shutil.copy(folder / of / stage_folder.WEIGHTS, tmp_path / part)
    with pytest.raises(BadWeightsFile, match=r"/haiku_nfnet: encoder/blocks/.* has no place in"):
        frozen_parts.read_encoder("pretrained", tmp_path / "haiku_nfnet", config)
    segments = plan(6, 2, 1)
    with pytest.raises(BadWeightsFile, match=r"/gguf: language_model/blocks/.* is missing: "):
        pretrained_lm.load(tmp_path / "gguf", segments)
    shutil.copy(folder / "gguf" / stage_folder.WEIGHTS, tmp_path / "gguf")
    file = tmp_path / "gguf" / pretrained_lm.CONFIG
    values = json.loads(file.read_text())
    for num_layers in (5, 7):
        file.write_text(json.dumps(values | {"num_layers": num_layers}))
        with pytest.raises(BadWeightsFile, match=rf"is \(1, 6, .* wants \(1, {num_layers}, "):
            pretrained_lm.load(tmp_path / "gguf", segments)
    file.write_text("[]")
    with pytest.raises(BadWeightsFile, match="cannot be read"):
        pretrained_lm.read_config(tmp_path / "gguf")
