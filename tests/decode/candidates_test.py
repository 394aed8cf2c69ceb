"""Candidates side by side behind one prompt, against each of them appended to it alone."""

import jax
import numpy as np
import pytest

from flamingo_jax.batch import Batch
from flamingo_jax.decode import candidates
from flamingo_jax.decode.score import token_log_probs
from tests import tiny_flamingo as tiny

PROMPT = 9  # a random batch has its last image at 8: it begins the answer's text
ANSWERS = [
    [[3, 1, tiny.END_OF_CHUNK], [7, tiny.END_OF_CHUNK], [3, 1], [5], [2, 9, 4, 4, 8, 6]],
    [[11], [3, 1, tiny.END_OF_CHUNK], [], [12, 13, 14], [3]],
]
CONFIGS = {
    "rope": tiny.changed(
        lm={
            "sliding_window": 4,
            "global_layers": (1, 4),
            "local_rope_base": 10.0,
            "attention_softcap": 1.0,
            "logits_softcap": 2.0,
        }
    ),
    "alibi": tiny.changed(lm={"positions": "alibi"}),
    "relative": tiny.changed(lm={"positions": "relative", "num_kv_heads": 4}),
    "learned": tiny.changed(lm={"positions": "learned"}),
    "all_previous": tiny.changed(cross_attention={"attend": "all_previous"}),
    "graft": tiny.changed(cross_attention={"kind": "graft"}),
}


def appended(config, params, prompt: Batch) -> np.ndarray:
    """f32[B, K] of each answer in a row of its own, behind the whole prompt."""
    flat = [answer for row in ANSWERS for answer in row]
    longest, length = max(map(len, flat)), prompt.tokens.shape[1]
    new = np.array([[*answer, *[tiny.PAD] * (longest - len(answer))] for answer in flat], np.int32)
    rows = jax.tree.map(lambda x: np.repeat(x, len(ANSWERS[0]), axis=0), prompt)
    pad = [(0, 0), (0, longest)]
    batch = rows._replace(
        tokens=np.concatenate([rows.tokens, new], axis=1),
        token_mask=np.pad(rows.token_mask, pad, constant_values=True),
        loss_mask=np.pad(rows.loss_mask, pad),
        media_index=np.pad(rows.media_index, pad, mode="edge"),
    )
    found = np.asarray(tiny.jit(token_log_probs, config)(params, batch))[:, length:]
    sums = [row[: len(answer)].sum() for row, answer in zip(found, flat, strict=True)]
    return np.reshape(sums, (len(ANSWERS), -1))


def prompts() -> Batch:
    """Two prompts, the second padded by three on the left."""
    batch = tiny.random_batch(length=PROMPT)
    padding = 3
    for array, filler in (
        (batch.tokens, tiny.PAD), (batch.token_mask, False), (batch.media_index, 0)
    ):  # fmt: skip
        array[1] = np.concatenate([np.full(padding, filler, array.dtype), array[1, :-padding]])
    batch.media_mask[1, 2:] = False  # two images stand in its six tokens
    return batch


def packed(num_places: int) -> candidates.Candidates:
    rows = [candidates.pack(answers, num_places) for answers in ANSWERS]
    turns = max(len(r.tokens) for r in rows)

    def filled(x):  # prompts of one batch have as many turns
        return np.pad(x, [(0, turns - len(x)), (0, 0)]) if x.ndim == 2 else x

    return jax.tree.map(lambda *x: np.stack([filled(one) for one in x]), *rows)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_candidate_scores_what_it_scores_alone(name):
    config = CONFIGS[name]
    params, batch = tiny.random_params(config), prompts()
    found = tiny.jit(candidates.log_probs, config)(params, batch, packed(16))
    np.testing.assert_allclose(found, appended(config, params, batch), atol=2e-5)


def test_candidates_that_take_turns_score_the_same():
    params, batch = tiny.random_params(), prompts()
    score = tiny.jit(candidates.log_probs)
    assert packed(16).tokens.shape == (2, 1, 16)
    assert packed(6).tokens.shape == (2, 2, 6)
    np.testing.assert_allclose(
        score(params, batch, packed(6)), score(params, batch, packed(16)), atol=2e-5
    )


def test_places_are_enough_for_the_longest_and_bounded_for_many():
    assert candidates.num_places([[[1, 2, 3], [4]], [[5]]]) == 4
    assert candidates.num_places([[[1, 2]] * 10_000]) == candidates.MAX_PLACES
    long = [0] * 999
    assert candidates.num_places([[long]]) >= 998
    assert candidates.num_places([[[]]]) == candidates.num_places([]) == 4


def test_learned_positions_make_candidates_take_turns_before_they_are_refused():
    learned = CONFIGS["learned"].language_model  # 64 positions
    assert candidates.room(learned, 60) == 4
    assert candidates.room(learned, 99) == 1
    assert candidates.room(tiny.CONFIG.language_model, 60) == candidates.MAX_PLACES
    assert candidates.num_places([[[1, 2, 3, 4]] * 8], 4) == 4  # eight turns
    assert candidates.num_places([[[1, 2, 3, 4]] * 8], 2) == 3  # what one candidate needs

    score = tiny.jit(candidates.log_probs, CONFIGS["learned"])
    params, batch = tiny.random_params(CONFIGS["learned"]), tiny.random_batch(length=60)
    rows = jax.tree.map(lambda x: np.stack([x] * 2), candidates.pack([[1, 2, 3, 4]] * 2, 4))
    assert np.isfinite(score(params, batch, rows)).all()
    rows = jax.tree.map(lambda x: np.stack([x] * 2), candidates.pack([[1, 2, 3, 4]] * 2, 8))
    with pytest.raises(ValueError, match="a sequence of 68 tokens: the learned positions end at"):
        score(params, batch, rows)


def test_packing_keeps_each_candidate_together():
    rows = candidates.pack([[1, 2, 3], [4], [], [5, 6, 7, 8]], 4)
    np.testing.assert_array_equal(rows.first, [1, 4, -1, 5])
    np.testing.assert_array_equal(rows.tokens, [[1, 2, 0, 0], [5, 6, 7, 0]])
    np.testing.assert_array_equal(rows.following, [[2, 3, 0, 0], [6, 7, 8, 0]])
    np.testing.assert_array_equal(rows.candidate, [[1, 1, 0, 0], [4, 4, 4, 0]])
