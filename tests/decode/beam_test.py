"""Beam search on a chain worked out by hand, and against every continuation of the real model."""

import itertools

import jax
import numpy as np
import pytest

from flamingo_jax.decode import beam
from flamingo_jax.decode.beam import beam_search
from flamingo_jax.decode.sampler import SamplingConfig, sample
from flamingo_jax.models.flamingo import Flamingo
from tests import tiny_flamingo as tiny
from tests.decode.markov import END, PAD, START, Chain

# The likeliest first token is the wrong one: 0 leads to 0.6 * 0.35, 1 leads to 0.4 * 0.95.
TRAP = {
    START: {0: 0.6, 1: 0.4},
    0: {END: 0.35, 0: 0.33, 1: 0.32},
    1: {END: 0.95, 0: 0.05},
}


def search(monkeypatch, num_beams, max_tokens=4):
    Chain(TRAP, batch_size=2).install(monkeypatch, beam)
    return beam_search(
        None, None, num_beams=num_beams, max_tokens=max_tokens, stop_ids=(END,), pad_id=PAD
    )


def test_two_beams_escape_the_trap(monkeypatch):
    out = search(monkeypatch, 2)
    assert out.tokens.tolist() == [[1, END, PAD, PAD]] * 2
    assert out.length.tolist() == [2, 2]
    np.testing.assert_allclose(out.log_prob, np.log(0.4 * 0.95), rtol=1e-5)


def test_it_stops_running_the_model_when_nothing_can_beat_the_best(monkeypatch):
    chain = Chain(TRAP, batch_size=2).install(monkeypatch, beam)
    out = beam_search(None, None, num_beams=2, max_tokens=50, stop_ids=(END,), pad_id=PAD)
    assert out.length.tolist() == [2, 2]
    assert chain.num_steps() == 1


def test_one_beam_falls_in(monkeypatch):
    out = search(monkeypatch, 1)
    assert out.tokens[0].tolist() == [0, END, PAD, PAD]
    np.testing.assert_allclose(out.log_prob, np.log(0.6 * 0.35), rtol=1e-5)


# The real model: 5 words, and what Flamingo adds.
WORDS, LENGTH = 5, 3
IMAGE_ID, END_ID, PAD_ID = WORDS, WORDS + 1, WORDS - 1
NEVER = (IMAGE_ID, PAD_ID)
SETTINGS = {"max_tokens": LENGTH, "stop_ids": (END_ID,), "pad_id": PAD_ID, "never_ids": NEVER}
CONFIG = tiny.changed(
    lm={"vocab_size": WORDS, "num_layers": 3}, cross_attention={"every": 1, "offset": 1}
)


@pytest.fixture(scope="module")
def params():
    params = tiny.random_params(CONFIG)
    table = params["language_model"]["embedding"]
    params["language_model"]["embedding"] = 4 * table  # far from even odds
    return params


@pytest.fixture(scope="module")
def prompt():
    batch = tiny.random_batch(length=6, num_media=1)
    tokens = np.where(batch.tokens == tiny.IMAGE, IMAGE_ID, batch.tokens % (WORDS - 1))
    return batch._replace(tokens=tokens.astype(np.int32))


@pytest.fixture(scope="module")
def every_continuation(params, prompt):
    """(tokens, log-probabilities [B]) of each way to go on, ended or LENGTH tokens long."""
    writable = [t for t in range(WORDS + 2) if t not in NEVER]
    whole = list(itertools.product(writable, repeat=LENGTH))
    model = tiny.jit(Flamingo.__call__, CONFIG)
    n = len(whole)

    def extended(x, filler=0):
        tail = np.broadcast_to(filler, (len(x) * n, LENGTH)).astype(x.dtype)
        return np.concatenate([np.repeat(x, n, axis=0), tail], axis=1)

    b, t = prompt.tokens.shape
    batch = prompt._replace(
        tokens=extended(prompt.tokens, np.tile(whole, (b, 1))),
        token_mask=extended(prompt.token_mask, True),
        loss_mask=extended(prompt.loss_mask),
        media_index=extended(prompt.media_index, 1),
        media=np.repeat(prompt.media, n, axis=0),
        media_mask=np.repeat(prompt.media_mask, n, axis=0),
    )
    logits = model(params, batch)[:, t - 1 : -1]
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    each = np.take_along_axis(log_probs, batch.tokens[:, t:, None], axis=-1)[..., 0]
    each = each.reshape(b, n, LENGTH)
    found = {}
    for i, tokens in enumerate(whole):
        length = tokens.index(END_ID) + 1 if END_ID in tokens else LENGTH
        found[tokens[:length]] = each[:, i, :length].sum(-1)
    return found


def test_enough_beams_find_the_best_of_all_continuations(params, prompt, every_continuation):
    run = tiny.jit(lambda m, p: beam_search(m, p, num_beams=25, **SETTINGS), CONFIG)
    out = jax.device_get(run(params, prompt))
    for row in range(2):
        best = max(every_continuation, key=lambda c: every_continuation[c][row])
        assert tuple(out.tokens[row, : out.length[row]]) == best
        np.testing.assert_allclose(out.log_prob[row], every_continuation[best][row], atol=1e-4)
        assert (out.tokens[row, out.length[row] :] == PAD_ID).all()


def test_one_beam_is_greedy(params, prompt, every_continuation):
    one = tiny.jit(lambda m, p: beam_search(m, p, num_beams=1, **SETTINGS), CONFIG)(params, prompt)
    keys = jax.random.split(jax.random.key(0), 2)
    greedy = tiny.jit(lambda m, p: sample(m, p, keys, config=SamplingConfig(), **SETTINGS), CONFIG)(
        params, prompt
    )
    for a, b in zip(one, greedy, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for row in range(2):
        tokens = tuple(np.asarray(greedy.tokens)[row, : greedy.length[row]].tolist())
        np.testing.assert_allclose(greedy.log_prob[row], every_continuation[tokens][row], atol=1e-4)
