"""What transformers, open_clip and timm save today is converted, with no tensor left over."""

import json

import pytest

from experiments.published import part_conversion
from flamingo_jax.weights import stage_folder
from tests.language_model_folder import NUM_IDS, write_tokenizer
from tests.models.nfnet_test import timm_model
from tests.torch_reference import import_torch
from tests.weights.language_models import hf_lm_test

THIN = {"patch_size": 8, "image_size": 32}  # of every name of the variant, width and heads beside


def convert(kind, path):
    """The part, and its numbers of tensors that were not needed."""
    out = path.parent / f"out_{path.name}"
    done = part_conversion.convert(kind, path, out, "float32")
    assert stage_folder.read_params(out)
    return done.part, {what: number for what, number in done.part.unneeded.items() if number}


@pytest.mark.reference
@pytest.mark.parametrize("make", hf_lm_test.FAMILIES, ids=lambda f: f.__name__)
def test_language_models_of_transformers(tmp_path, make, monkeypatch):
    import_torch()
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    monkeypatch.setattr(hf_lm_test, "VOCAB", NUM_IDS + 3)
    path = tmp_path / make.__name__
    model = make(hf)
    model.save_pretrained(path)
    write_tokenizer(path)
    part, unneeded = convert("hf_lm", path)
    beside = unneeded.pop("another part's", 0)
    assert (unneeded, beside > 0) == ({}, make is hf_lm_test.gemma3)
    assert part.mapped + beside == len({t.data_ptr() for t in model.state_dict().values()})
    assert part.tokenizer.base_vocab_size == NUM_IDS + 3


@pytest.mark.reference
def test_clip_of_transformers(tmp_path):
    import_torch()
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    tower = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    tower |= {"intermediate_size": 128, "hidden_act": "gelu", **THIN}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}
    for model, beside in (
        (hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=tower)), True),
        (hf.CLIPVisionModel(hf.CLIPVisionConfig(**tower)), False),
    ):
        path = tmp_path / f"clip_{beside}"
        model.save_pretrained(path)
        part, unneeded = convert("hf_clip", path)
        assert (part.mapped, [*unneeded]) == (55, ["text tower or projections"] * beside)
        assert part.config.activation == "gelu"


@pytest.mark.reference
def test_siglip_of_transformers(tmp_path):
    import_torch()
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    tower = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    tower |= {"intermediate_size": 48, "patch_size": 8, "image_size": 36}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}
    for model, beside in (
        (hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=tower)), True),
        (hf.SiglipVisionModel(hf.SiglipVisionConfig(**tower)), False),
    ):
        path = tmp_path / f"siglip_{beside}"
        model.save_pretrained(path)
        hf.SiglipImageProcessor(size={"height": 36, "width": 36}).save_pretrained(path)
        part, unneeded = convert("hf_siglip", path)
        others = ["text tower or projections"] * beside
        assert (part.mapped, [*unneeded]) == (53, [*others, "projection or buffer"])
        assert (part.config.variant, part.config.preprocessing.size_px) == ("siglip_thin", 36)


@pytest.mark.reference
@pytest.mark.parametrize("quick", [False, True])
def test_clip_of_open_clip(tmp_path, quick):
    torch = import_torch()
    open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")
    config = {
        "embed_dim": 16,
        "quick_gelu": quick,
        "vision_cfg": {"width": 32, "layers": 3, "head_width": 8, **THIN},
        "text_cfg": {"width": 16, "layers": 1, "heads": 2, "vocab_size": 20},
    }
    path = tmp_path / "open_clip"
    path.mkdir()
    model = open_clip.CLIP(**config)
    torch.save(model.state_dict(), path / "open_clip_pytorch_model.bin")
    (path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3]}})
    )
    part, unneeded = convert("open_clip", path)
    assert (part.mapped, unneeded["projection or buffer"]) == (43, 1)
    assert part.config.activation == ("quick_gelu" if quick else "gelu")
    assert part.config.preprocessing.mean == (0.5, 0.4, 0.3)


@pytest.mark.reference
def test_nfnet_of_timm(tmp_path):
    torch = import_torch()
    path = tmp_path / "dm_nfnet"
    path.mkdir()
    torch.save(timm_model(torch, "thin").state_dict(), path / "pytorch_model.bin")
    (path / "config.json").write_text(json.dumps({"pretrained_cfg": {"std": [0.2, 0.3, 0.4]}}))
    part, unneeded = convert("timm_nfnet", path)
    assert unneeded == {"classifier": 2}
    assert (part.config.variant, part.config.preprocessing.std) == ("thin", (0.2, 0.3, 0.4))
