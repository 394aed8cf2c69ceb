"""Greedy decoding and sampling on chains worked out by hand, and with the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flamingo_jax.decode import sampler
from flamingo_jax.decode.sampler import SamplingConfig, draw, sample
from tests.decode.markov import END, IMAGE, PAD, START, Chain

CHAIN = {
    START: {0: 0.6, 1: 0.4},
    0: {IMAGE: 0.5, PAD: 0.2, 1: 0.2, 2: 0.1},
    1: {2: 0.7, 0: 0.3},
    2: {END: 0.9, 0: 0.1},
}


def run(monkeypatch, probabilities=CHAIN, max_tokens=6, batch_size=1, never=(), **config):
    chain = Chain(probabilities, batch_size)
    return run_chain(monkeypatch, chain, max_tokens, never, **config)


def run_chain(monkeypatch, chain, max_tokens, never=(), **config):
    batch_size = chain.install(monkeypatch, sampler).batch_size
    return sample(
        None,
        None,
        jax.random.split(jax.random.key(0), batch_size),
        config=SamplingConfig(**config),
        max_tokens=max_tokens,
        stop_ids=(END,),
        pad_id=PAD,
        never_ids=never,
    )


def test_greedy_follows_the_likeliest_and_stops(monkeypatch):
    chain = {**CHAIN, 0: {1: 1.0}}
    out = run(monkeypatch, chain)
    assert out.tokens.tolist() == [[0, 1, 2, END, PAD, PAD]]
    assert out.length.tolist() == [4]
    np.testing.assert_allclose(out.log_prob, np.log(0.6 * 1 * 0.7 * 0.9), rtol=1e-5)


def test_it_stops_running_the_model_when_all_rows_have_ended(monkeypatch):
    chain = Chain({START: {0: 1.0}, 0: {1: 1.0}, 1: {END: 1.0}}, batch_size=2)
    out = run_chain(monkeypatch, chain, max_tokens=50)
    assert out.length.tolist() == [3, 3]
    assert chain.num_steps() == 2  # the prompt gives the first token


def test_rows_draw_for_themselves_and_alike_in_any_batch(monkeypatch):
    even = {token: {0: 0.5, 1: 0.5} for token in (START, 0, 1)}
    many, few = (
        run(monkeypatch, even, max_tokens=20, batch_size=n, temperature=1.0) for n in (8, 2)
    )
    assert len({tuple(row) for row in many.tokens.tolist()}) == 8
    np.testing.assert_array_equal(few.tokens, many.tokens[:2])  # the keys are the same two


def test_likelihoods_are_those_of_the_unmodified_model(monkeypatch):
    """Half of what follows 0 is `<image>`, which is never written; the rest keeps its odds."""
    out = run(monkeypatch, never=(IMAGE, PAD))
    np.testing.assert_allclose(out.log_prob, np.log(0.6 * 0.2 * 0.7 * 0.9), rtol=1e-5)


def test_it_ends_at_max_tokens(monkeypatch):
    out = run(monkeypatch, {START: {0: 1.0}, 0: {0: 1.0}}, max_tokens=3)
    assert (out.tokens.tolist(), out.length.tolist()) == ([[0, 0, 0]], [3])


def test_image_and_padding_are_never_written(monkeypatch):
    out = run(monkeypatch, never=(IMAGE, PAD))
    assert out.tokens.tolist() == [[0, 1, 2, END, PAD, PAD]]
    drawn = run(monkeypatch, never=(IMAGE, PAD), temperature=2.0, batch_size=500)
    written = np.asarray(drawn.tokens)[np.arange(6) < np.asarray(drawn.length)[:, None]]
    assert not np.isin(written, [IMAGE, PAD]).any()
    assert np.isin([0, 1, 2, END], written).all()


def test_sampling_from_one_token_is_greedy(monkeypatch):
    never = (IMAGE, PAD)  # nothing follows them in the chain: all tokens would tie
    greedy = run(monkeypatch, never=never)
    for config in ({"top_k": 1}, {"top_p": 1e-6}):
        drawn = run(monkeypatch, never=never, temperature=1.0, **config)
        np.testing.assert_array_equal(drawn.tokens, greedy.tokens)


PROBABILITIES = np.array([0.15, 0.5, 0.05, 0.3])  # likeliest first: 1, 3, 0, 2


def shares(**config):
    """How often each token is drawn, of 20,000."""
    log_probs = jnp.log(jnp.tile(PROBABILITIES, (20_000, 1)))
    keys = jax.random.split(jax.random.key(1), 20_000)
    drawn = draw(log_probs, keys, SamplingConfig(**{"temperature": 1.0} | config))
    return np.bincount(drawn, minlength=4) / 20_000


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.4, [1]),
        (0.6, [1, 3]),  # 0.5 is short of it, so the next one is in
        (0.85, [1, 3, 0]),
        (0.96, [1, 3, 0, 2]),
        (1.0, [1, 3, 0, 2]),
    ],
)
def test_the_nucleus_by_hand(top_p, kept):
    want = np.zeros(4)
    want[kept] = PROBABILITIES[kept] / PROBABILITIES[kept].sum()
    np.testing.assert_allclose(shares(top_p=top_p), want, atol=0.015)


@pytest.mark.parametrize("more", [{}, {"top_k": 2}, {"top_p": 0.9}])
@pytest.mark.parametrize("temperature", [1e-38, 1e-45])  # log-probabilities over them overflow
def test_a_temperature_next_to_zero_is_greedy(temperature, more):
    assert shares(temperature=temperature, **more).tolist() == [0, 1, 0, 0]


def test_more_than_all_tokens_are_all():
    np.testing.assert_array_equal(shares(top_k=100), shares())


def test_top_k_by_hand():
    np.testing.assert_allclose(shares(top_k=2), [0, 0.5 / 0.8, 0, 0.3 / 0.8], atol=0.015)


def test_temperature_by_hand():
    want = PROBABILITIES**2 / (PROBABILITIES**2).sum()
    np.testing.assert_allclose(shares(temperature=0.5), want, atol=0.015)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0: use 0"),
        ({"top_k": -1}, "top_k=-1: use 0"),
        ({"top_p": 0.0}, "top_p=0.0: use more than 0"),
    ],
)
def test_values_that_make_no_sense_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**config)
