"""A converted IDEFICS against the model of transformers: the same logits for the same prompts."""

import pathlib
import types
from typing import NamedTuple

import jax
import numpy as np
import pytest

import flamingo_jax
from experiments.published import conversion, export_formats
from flamingo_jax import model_directory
from flamingo_jax.decode import prompt_batch
from flamingo_jax.images import decode_image
from flamingo_jax.model import Model
from flamingo_jax.model_directory import read_card, read_tokenizer
from flamingo_jax.prompts import ImagePart, TextPart
from flamingo_jax.weights.flamingos import published
from tests import prompt_cases
from tests.language_model_folder import NUM_IDS
from tests.open_flamingo_reference import randomise
from tests.torch_reference import import_torch
from tests.weights import idefics_files

pytestmark = pytest.mark.reference

TOLERANCE = 1e-4  # of the largest logit
AROUND, IMAGE = NUM_IDS, NUM_IDS + 1


def build(folder, alpha_type):
    """A small model with every feature of the released ones on, saved in shards."""
    torch = import_torch()
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = hf.IdeficsConfig(
        vocab_size=NUM_IDS,
        additional_vocab_size=3,
        hidden_size=64,
        intermediate_size=88,
        num_hidden_layers=4,
        num_attention_heads=4,
        cross_layer_interval=2,
        qk_layer_norms=True,
        use_resampler=True,
        alpha_type=alpha_type,
        vision_config={
            "embed_dim": 32,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "patch_size": 8,
            "image_size": 32,
        },
        perceiver_config={
            "use_resampler": True,
            "resampler_n_latents": 5,
            "resampler_depth": 2,
            "resampler_n_heads": 2,
            "resampler_head_dim": 12,
            "qk_layer_norms_perceiver": True,
        },
    )
    model = hf.IdeficsForVisionText2Text(config)
    randomise(torch, model.parameters())
    model.save_pretrained(folder, max_shard_size="300KB")
    idefics_files.write_tokens(folder)
    return model.eval()


class Pair(NamedTuple):
    """A model of transformers, what it was converted to, and where the two lie."""

    theirs: object
    ours: Model
    report: str
    folder: pathlib.Path

    @property
    def eos_id(self) -> int:
        return self.ours.tokenizer.eos_id


@pytest.fixture(scope="module", params=["float", "vector"])
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("idefics")
    theirs = build(folder / "idefics", request.param)
    assert len([*(folder / "idefics").glob("model-*.safetensors")]) > 1
    found = published.from_idefics(folder / "idefics")
    card = conversion.write(found, folder / "model", "float32")
    report = "\n".join(conversion.lines(found, card))
    return Pair(theirs, flamingo_jax.load(folder / "model"), report, folder)


def reference(model, eos_id):
    """Logits by transformers, with the mask that its processor makes."""
    torch = import_torch()
    from transformers.models.idefics import processing_idefics as processing

    tokenizer = types.SimpleNamespace(convert_tokens_to_ids=lambda name: IMAGE, eos_token_id=eos_id)

    def logits(pixels, batch):
        ids, mask = (torch.from_numpy(x.astype(np.int64)) for x in (batch.tokens, batch.token_mask))
        seen, _ = processing.image_attention_mask_for_packed_input_ids(ids, tokenizer, "pt")
        images = processing.incremental_to_binary_attention_mask(
            seen, "pt", num_classes=pixels.shape[1]
        )
        with torch.no_grad():
            return model(
                input_ids=ids,
                attention_mask=mask,
                pixel_values=torch.from_numpy(pixels.transpose(0, 1, 4, 2, 3).copy()),
                image_attention_mask=images,
            ).logits.numpy()

    return logits


def test_logits(pair):
    theirs = reference(pair.theirs, pair.eos_id)
    for name, difference in prompt_cases.differences(pair.ours, theirs):
        print(f"{name}: largest difference {difference:.1e} of the largest logit")
        assert difference < TOLERANCE


def test_exported_it_is_their_model_again(pair, tmp_path):
    """The same names, shapes, dtypes and numbers, as transformers opens them by itself."""
    again = exported(pair.folder / "model", tmp_path / "out")
    want, found = pair.theirs.state_dict(), again.state_dict()
    assert {*found} == {*want}
    for name, tensor in want.items():
        assert found[name].dtype == tensor.dtype
        assert import_torch().equal(found[name], tensor), name
    for file in ("config.json", "generation_config.json", "tokenizer.json"):
        copy = (tmp_path / "out" / file).read_bytes()
        assert copy == (pair.folder / "idefics" / file).read_bytes()
    for _, difference in prompt_cases.differences(pair.ours, reference(again, pair.eos_id)):
        assert difference < TOLERANCE


def test_trained_on_and_exported_it_computes_what_is_computed_here(pair, tmp_path):
    before, rng = pair.folder / "model", np.random.default_rng(1)
    moved = jax.tree.map(
        lambda x: np.asarray(x + 0.1 * rng.normal(size=x.shape), np.float32),
        model_directory.trained_params(before),
    )
    card, tokenizer = (read(before) for read in (read_card, read_tokenizer))
    model_directory.save(tmp_path / "run" / "model", card, tokenizer, moved)
    ours, theirs = flamingo_jax.load(tmp_path / "run"), exported(tmp_path / "run", tmp_path / "out")
    for name, difference in prompt_cases.differences(ours, reference(theirs, pair.eos_id)):
        print(f"{name}, trained on: largest difference {difference:.1e} of the largest logit")
        assert difference < TOLERANCE
    for _, difference in prompt_cases.differences(ours, reference(pair.theirs, pair.eos_id)):
        assert difference > 100 * TOLERANCE


def exported(model, out):
    """What transformers makes of the folder, and nothing to complain of."""
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    export_formats.to_idefics(model, read_card(model), out)
    found, report = hf.IdeficsForVisionText2Text.from_pretrained(out, output_loading_info=True)
    assert not any(report.values()), report
    return found.eval()


def test_pictures_are_wrapped_as_in_training(pair):
    """Two pictures side by side share the token between them."""
    ours = pair.ours
    picture, text = ImagePart(prompt_cases.RED), TextPart("a")
    pp = ours.config.vision.preprocessing
    found = prompt_batch.encode([picture, picture, text, picture], ours.tokenizer, pp)
    a = ours.tokenizer.encode("a")
    assert found.tokens == [
        ours.tokenizer.bos_id,
        *(AROUND, IMAGE, AROUND, IMAGE, AROUND),
        *a,
        *(AROUND, IMAGE, AROUND),
    ]
    assert found.is_text == [False] * 6 + [True] * len(a) + [False] * 3


def test_candidates_behind_a_cached_prompt_are_as_likely_as_in_one_text(pair):
    """Keys are normed once a prompt, and read at every step."""
    ours = pair.ours
    prompt = [{"image": prompt_cases.NOISE}, {"text": "Output:"}]
    (found,) = ours.likelihoods([prompt], [[" cat"]], closed=False)
    (scored,) = ours.score([[*prompt, {"text": " cat"}]])
    assert found[0] == pytest.approx(sum(scored.log_probs[-4:]), abs=1e-3)


def test_report(pair):
    text = pair.report
    assert "2  tables of new tokens' rows" in text
    assert "257 <fake_token_around_image>, 258 <image>, 259 <EOC>" in text
    assert "frozen  language model, read from hf_lm:" in text


def test_pixels_equal_the_processors(pair):
    """Stretched to a square, to within the rounding of a normalised number."""
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    ours = pair.ours
    pp = ours.config.vision.preprocessing
    processor = hf.models.idefics.image_processing_pil_idefics.IdeficsImageProcessorPil(
        image_size=pp.size_px
    )
    from PIL import Image

    picture = Image.fromarray(prompt_cases.NOISE)
    want = np.asarray(processor([picture], return_tensors="np"))[0].transpose(1, 2, 0)
    found = (decode_image(picture, pp) / 255 - np.array(pp.mean)) / np.array(pp.std)
    np.testing.assert_allclose(found, want, atol=1e-5)
