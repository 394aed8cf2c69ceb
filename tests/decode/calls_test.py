"""Which prompts share a device call, and that each gets its own answer whatever the calls are."""

import copy
import warnings

import numpy as np
import pytest

from flamingo_jax.config import DTypePolicy
from flamingo_jax.decode import calls
from flamingo_jax.decode.cache import empty_cache, media_bytes, token_bytes
from flamingo_jax.model import Decoding
from flamingo_jax.models import insertion
from flamingo_jax.prompts import Prompt, PromptError, TextPart
from flamingo_jax.tokenizer import Tokenizer
from tests import tiny_flamingo as tiny
from tests.tokenizer_test import train_sentencepiece


def test_prompts_come_some_at_a_time_and_are_asked_for_no_sooner(monkeypatch):
    monkeypatch.setattr(calls, "MAX_PROMPTS", 2)
    asked = []
    prompts = (asked.append(i) or i for i in range(5))
    windows = calls.windows(prompts)
    assert (next(windows), asked) == ([0, 1], [0, 1])
    assert list(windows) == [[2, 3], [4]]


def test_rows_of_a_shape_share_calls_of_about_one_size():
    shapes = [(1, 8), (0, 8), (1, 8), (1, 8), (1, 4), (1, 8), (1, 8)]
    found = list(calls.calls(shapes, lambda shape: 4 if shape[1] == 8 else 1))
    assert found == [((0, 8), [1]), ((1, 4), [4]), ((1, 8), [0, 2, 3]), ((1, 8), [5, 6])]


@pytest.mark.parametrize(
    ("budget", "each", "rows"), [(100, 10, 8), (80, 10, 8), (79, 10, 4), (5, 10, 1), (9999, 1, 32)]
)
def test_as_many_rows_as_have_room(budget, each, rows):
    assert calls.rows_within(budget, each) == rows
    assert calls.rows_within(budget, each, 3) == 3 * rows


def test_calls_are_filled_with_the_first_row():
    assert calls.filled("abc") == ["a", "b", "c", "a"]
    assert calls.filled("a") == ["a"]
    assert calls.filled("abcde", 2) == [*"abcde", "a", "a", "a"]
    assert calls.filled("abcde", 3) == [*"abcde", "a"]


def test_bytes_of_tokens_and_media_are_those_of_their_cache():
    config, dtype = tiny.CONFIG, DTypePolicy().compute
    lm = config.language_model
    segments = insertion.language_model_segments(config)
    cache = empty_cache(lm, segments, 1, 20, dtype)
    slots = sum(x.nbytes for pair in cache.values() for x in pair)
    looks = sum(s.repeats for s in insertion.cross_attention_segments(config))
    xattn = config.cross_attention
    media = 2 * looks * config.resampler.num_latents * xattn.num_heads * xattn.head_dim * 2
    assert 20 * token_bytes(config, dtype) == slots
    assert media_bytes(config, dtype) == media


def prompt(i: int) -> list[dict]:
    parts = [{"text": "a" * (1 + i % 7)}]
    return [{"image": np.full((8, 8, 3), i, np.uint8)}, *parts] if i % 3 else parts


@pytest.mark.parametrize(
    "limits",
    [{}, {"MAX_PROMPTS": 4}, {"MAX_ROWS": 2}, {"MAX_CACHE_BYTES": 1}, {"MAX_MEDIA_BYTES": 1}],
)
def test_each_prompt_gets_its_own_continuation(micro_model, monkeypatch, limits):
    """The model is one that writes its prompt's number."""
    for name, value in limits.items():
        monkeypatch.setattr(calls, name, value)
    seen = []

    def run(params, batch, seed, numbers):
        assert len(batch.tokens) == len(numbers)
        seen.append(len(set(numbers.tolist())))
        tokens = np.array([[ord("0") + n, 0] for n in numbers])
        return tokens, np.ones(len(numbers), int), -numbers.astype(np.float32)

    monkeypatch.setattr(type(micro_model), "_continue", lambda self, decoding: run)
    decoding, done = Decoding("sample", max_tokens=2), []
    written = micro_model.generate(map(prompt, range(10)), decoding, tick=done.append)
    assert done == seen
    assert [w.log_prob for w in written] == [-i for i in range(10)]
    assert [w.tokens for w in written] == [(ord("0") + i,) for i in range(10)]
    assert sum(seen) == 10
    if "MAX_ROWS" in limits:
        assert max(seen) == 2
    if {"MAX_CACHE_BYTES", "MAX_MEDIA_BYTES"} & set(limits):
        assert max(seen) == 1


def test_every_prompt_needs_candidates(micro_model, monkeypatch):
    monkeypatch.setattr(
        type(micro_model), "_score_candidates", lambda self, params, batch, c: np.zeros((2, 1))
    )
    texts = [["a"], ["b"], ["c"]]
    with pytest.raises(ValueError, match="3 lists of candidates for 2 prompts"):
        micro_model.likelihoods([prompt(0), prompt(3)], texts)
    with pytest.raises(ValueError, match="1 lists of candidates for more prompts"):
        micro_model.likelihoods([prompt(0), prompt(3)], texts[:1])


def test_candidates_are_split_as_in_the_text_that_they_end(micro_model, monkeypatch, tmp_path):
    """As support examples are, which a prompt holds whole; with sentencepiece another split."""
    train_sentencepiece(tmp_path / "trained.model")
    model = copy.copy(micro_model)
    model.tokenizer = tokenizer = Tokenizer.from_sentencepiece(tmp_path / "trained.model")
    seen = []

    def score(self, params, batch, candidates):
        seen.append((batch, candidates))
        return np.zeros(candidates.first.shape)

    monkeypatch.setattr(type(micro_model), "_score_candidates", score)
    parts, text = [{"text": "a"}, {"text": " picture of"}], " flamingo number"
    model.likelihoods([parts], [[text]], closed=False)
    ((batch, candidates),) = seen
    own = candidates.following[candidates.candidate > 0].tolist()
    found = [*batch.tokens[batch.token_mask].tolist(), *candidates.first[0].tolist(), *own]
    whole = tokenizer.encode("a picture of flamingo number")
    assert found == [tokenizer.bos_id, *whole]

    monkeypatch.setattr(
        type(micro_model), "_score", lambda self, params, b: np.zeros(b.tokens.shape)
    )
    (scored,) = model.score([Prompt("q", tuple(map(TextPart, ("a", " picture of"))), (text,))])
    assert len(scored.tokens) + scored.candidates[0].num_tokens == len(whole)


def test_one_prompt_is_no_list_of_prompts(micro_model):
    """Each part, or each letter, would be read as a prompt of its own."""
    for one in ("hello", {"text": "a"}, [{"text": "a"}], Prompt("q", (TextPart("a"),))):
        for ask in (micro_model.generate, micro_model.score):
            with pytest.raises(PromptError, match=r"for a single one, \[prompt\]"):
                ask(one)
    with pytest.raises(ValueError, match="a list of texts for each prompt"):
        micro_model.likelihoods([prompt(0)], ["cat"])


def test_a_prompt_longer_than_the_trained_context_is_warned_of(micro_model, monkeypatch):
    monkeypatch.setattr(
        type(micro_model), "_score", lambda self, params, b: np.zeros(b.tokens.shape)
    )
    most = micro_model.config.language_model.max_length
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        micro_model.score(["a" * (most - 1)])  # and <BOS>
    with pytest.warns(UserWarning, match=f"{most + 1} tokens, and .* trained to read {most}"):
        micro_model.score(["a" * most])


def test_an_array_that_is_neither_picture_nor_features_is_named(micro_model):
    grey = np.zeros((64, 64), np.float32)
    with pytest.raises(PromptError, match=r"float32\[64, 64\], want a picture as uint8, or its"):
        micro_model.generate([[{"image": grey}, {"text": "a"}]])
    features = np.zeros((4, 1280), np.float32)
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(PromptError, match="pictures and cached features in one call"):
        micro_model.score([[{"image": x}, {"text": "a"}] for x in (features, picture)])


def test_seeds_of_any_size_and_of_one_program():
    decoding = Decoding("sample", seed=3_000_000_000, temperature=0.5)
    assert decoding.program() == Decoding("sample", seed=7, temperature=0.5).program()
    assert decoding.program() != Decoding("sample", temperature=0.7).program()
    assert Decoding("greedy", num_beams=5, top_k=3).program() == Decoding("greedy").program()


@pytest.mark.parametrize(
    "wrong",
    [
        *({"seed": -1}, {"seed": 2**32}, {"temperature": float("nan")}, {"temperature": -1}),
        *({"top_p": 0}, {"top_p": float("nan")}, {"top_k": -1}),
    ],
)
def test_what_no_decoding_can_do_is_refused_when_it_is_asked_for(wrong):
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))}=.*: use "):
        Decoding("sample", **wrong)
