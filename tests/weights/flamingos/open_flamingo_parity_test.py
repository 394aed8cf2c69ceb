"""A converted checkpoint against OpenFlamingo's own model: the same logits for the same prompts."""

import jax
import numpy as np
import pytest

import flamingo_jax
from experiments.published import conversion
from flamingo_jax import model_directory
from flamingo_jax.decode import prompt_batch
from flamingo_jax.model import Decoding
from flamingo_jax.prompts import EndOfChunk, ImagePart, TextPart
from flamingo_jax.weights.files import torch_checkpoint_writer
from flamingo_jax.weights.flamingos import open_flamingo_export, published
from flamingo_jax.weights.language_models import hf_lm_config
from tests import open_flamingo_reference as reference
from tests import prompt_cases
from tests.torch_reference import import_torch

pytestmark = pytest.mark.reference

TOLERANCE = 1e-4  # of the largest logit


CASES = {
    "mpt_every_1": (reference.mpt, 1, "open_clip"),
    "mpt_every_2": (reference.mpt, 2, "hf_clip"),
    "redpajama_every_2": (reference.redpajama, 2, "hf_clip"),
    "opt_every_3": (reference.opt, 3, "hf_clip"),
    "llama_every_4": (reference.llama, 4, "hf_clip"),
}


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    """(theirs, ours, the report)."""
    make, every, tower = CASES[request.param]
    folder = tmp_path_factory.mktemp("open_flamingo")
    theirs = reference.build(folder, make, every, tower)
    found = published.from_open_flamingo(theirs.checkpoint, theirs.lm, theirs.vision)
    card = conversion.write(found, folder / "model", "float32")
    report = list(conversion.lines(found, card))
    return theirs, flamingo_jax.load(folder / "model"), report


def test_logits(pair):
    theirs, ours, _ = pair
    for name, difference in prompt_cases.differences(ours, theirs.logits):
        print(f"{name}: largest difference {difference:.1e} of the largest logit")
        assert difference < TOLERANCE


@pytest.mark.parametrize("pair", ["redpajama_every_2"], indirect=True)
def test_what_is_written_is_what_they_would_write(pair):
    """Greedily, from a cache here, by reading the whole text at every step there."""
    theirs, ours, _ = pair
    t, pp = ours.tokenizer, ours.config.vision.preprocessing
    prompt = [ImagePart(prompt_cases.NOISE), TextPart("Output:")]
    encoded = prompt_batch.encode(prompt, t, pp)
    batch = prompt_batch.to_batch([encoded], t, (32, 32, 3), side="left")
    pixels = (batch.media[:, :, 0] / np.float32(255) - np.float32(pp.mean)) / np.float32(pp.std)
    tokens = np.array([encoded.tokens])
    for _ in range(6):
        grown = batch._replace(tokens=tokens, token_mask=np.ones_like(tokens, bool))
        scores = theirs.logits(pixels, grown)[0, -1]
        scores[[*t.never_written]] = -np.inf
        tokens = np.append(tokens, [[scores.argmax()]], axis=1)
    (written,) = ours.generate([prompt], Decoding(max_tokens=6))
    want = tokens[0, len(encoded.tokens) :].tolist()
    assert written.tokens == tuple(want[: len(written.tokens)])
    stopped = written.tokens[-1] in (t.end_of_chunk_id, t.eos_id)
    assert len(written.tokens) == 6 or stopped


def test_tokens_have_the_ids_they_were_trained_with(pair):
    theirs, ours, _ = pair
    t = ours.tokenizer
    assert (t.end_of_chunk_id, t.image_id) == (reference.END_OF_CHUNK, reference.IMAGE)
    prompt = [ImagePart(prompt_cases.RED), TextPart("a"), EndOfChunk()]
    encoded = prompt_batch.encode(prompt, t, ours.config.vision.preprocessing)
    with_bos = theirs.model.lang_encoder.config.model_type in ("opt", "llama")
    bos = [t.bos_id] if with_bos else []
    assert encoded.tokens == [*bos, reference.IMAGE, *t.encode("a"), reference.END_OF_CHUNK]
    assert ours.caption_template.format("a dog") == "Output:a dog"


def test_exported_it_is_their_checkpoint_again(pair, tmp_path):
    """Names, order of keys and values, and every number, as torch itself reads them."""
    theirs, ours, _ = pair
    torch = import_torch()
    family, _ = hf_lm_config.read_folder(theirs.lm)
    open_flamingo_export.check(ours.config, ours.tokenizer, family, reference.NUM_IDS)
    trained = jax.tree.map(np.asarray, model_directory.own_params(ours.params))
    tensors = open_flamingo_export.tensors(ours.config, trained, ours.tokenizer, theirs.lm, family)
    torch_checkpoint_writer.save_state_dict(tmp_path / "checkpoint.pt", tensors)
    want, found = (
        torch.load(file, weights_only=True)
        for file in (theirs.checkpoint, tmp_path / "checkpoint.pt")
    )
    if family == "llama":
        lost = found.pop("lang_encoder.lm_head.weight")
        assert torch.equal(lost, theirs.model.lang_encoder.lm_head.weight)
    assert {*found} == {*want} - {*reference.BUFFERS}
    for name, tensor in found.items():
        assert torch.equal(want[name], tensor), name


def test_report(pair):
    theirs, ours, report = pair
    text = "\n".join(report)
    lm = ours.config.language_model
    lost = theirs.model.lang_encoder.config.model_type == "llama"
    assert ("3  rows of the head are not in the file" in text) == lost
    rows = reference.NUM_IDS * (1 if lm.tied_head or lost else 2)
    rows += 130 * (lm.positions == "learned")  # two more than there are positions
    assert f"{rows}  rows compared" in text
    assert "largest difference 0" in text
    assert "0  unexpected" in text
    assert "257 <EOC>, 258 <image>, 259 <PAD>" in text
