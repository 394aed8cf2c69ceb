"""Decoding through the caches against the full forward pass."""

import jax
import numpy as np
import pytest
from flax import nnx

from flamingo_jax.batch import Batch
from flamingo_jax.decode.cache import media_bytes, token_bytes
from flamingo_jax.decode.steps import prefill, step
from flamingo_jax.models.flamingo import Flamingo
from tests import tiny_flamingo as tiny

PROMPT, NEW = 9, 3  # a random batch has its last image at 8


@pytest.fixture(scope="module")
def params():
    return tiny.random_params()


@pytest.fixture(scope="module")
def decode(params):
    """Logits [B, NEW + 1, V] after the prompt and after each of the tokens that follow."""
    start = tiny.jit(lambda m, prompt: prefill(m, prompt, NEW))
    go_on = tiny.jit(step)

    def run(prompt, tokens):
        logits, state = start(params, prompt)
        found = [logits]
        for i in range(NEW):
            logits, state = go_on(params, tokens[:, i], state)
            found.append(logits)
        return np.stack(found, axis=1)

    return run


def text_slice(batch: Batch, columns) -> Batch:
    fields = ("tokens", "token_mask", "loss_mask", "media_index")
    return batch._replace(**{name: getattr(batch, name)[:, columns] for name in fields})


def test_cached_decoding_equals_the_full_forward(params, decode):
    batch = tiny.random_batch(length=PROMPT + NEW)
    want = np.asarray(tiny.jit(Flamingo.__call__)(params, batch))[:, PROMPT - 1 :]
    found = decode(text_slice(batch, slice(PROMPT)), batch.tokens[:, PROMPT:])
    np.testing.assert_allclose(found, want, atol=2e-5)


def test_padding_on_the_left_changes_nothing(decode):
    """A prompt of 5 tokens beside one of 9, and one with two padded media."""
    batch = tiny.random_batch(length=PROMPT + NEW)
    prompt, new = text_slice(batch, slice(PROMPT)), batch.tokens[:, PROMPT:]
    want = decode(prompt, new)
    pad = 4
    short = jax.tree.map(lambda x: np.array(x), prompt)
    for name, filler in (("tokens", tiny.PAD), ("token_mask", False), ("media_index", 0)):
        array = getattr(short, name)
        array[0] = np.concatenate([np.full(pad, filler, array.dtype), array[0, : PROMPT - pad]])
    short.media_mask[0, 1:] = False  # its first 5 tokens have one image
    alone = decode(short, new)
    np.testing.assert_array_equal(alone[1], want[1])  # the other row does not notice

    bare = text_slice(prompt, slice(PROMPT - pad))
    bare = bare._replace(media_mask=short.media_mask)
    np.testing.assert_allclose(decode(bare, new)[0], alone[0], atol=2e-5)


def test_a_step_gives_back_in_place_what_prompts_and_beams_keep(params):
    """Each prompt its tokens and media once, each beam what it writes."""
    beams, prompt = 3, text_slice(tiny.random_batch(length=PROMPT), slice(PROMPT))
    (b, num_media), dtype = prompt.media_mask.shape[:2], "float32"
    state = jax.eval_shape(tiny.jit(lambda m, p: prefill(m, p, NEW, beams)[1]), params, prompt)
    graph = tiny.abstract()[0]
    run = jax.jit(lambda p, *args: step(nnx.merge(graph, p), *args), donate_argnums=2)
    tokens = jax.ShapeDtypeStruct((beams * b,), np.int32)
    memory = run.lower(params, tokens, state).compile().memory_analysis()
    kept = b * (PROMPT + beams * NEW) * token_bytes(tiny.CONFIG, dtype)
    kept += b * num_media * media_bytes(tiny.CONFIG, dtype)
    assert kept <= memory.alias_size_in_bytes < 1.1 * kept
