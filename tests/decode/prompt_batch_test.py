"""Prompts as tokens and pictures, by hand."""

import numpy as np
import pytest

from flamingo_jax.batch import check
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.decode.prompt_batch import Encoded, encode, padded_length, to_batch
from flamingo_jax.prompts import EndOfChunk, ImagePart, TextPart
from flamingo_jax.tokenizer import Tokenizer

TOKENIZER = Tokenizer.byte_level()  # 256 bytes, then these
BOS, PAD, IMAGE, END = 256, 258, 259, 260
PREPROCESSING = ImagePreprocessing(size_px=4)
RED = np.full((4, 4, 3), (200, 10, 10), np.uint8)
BLUE = RED[..., ::-1].copy()
SHAPE = (4, 4, 3)


def test_exactly_what_the_prompt_says_is_what_the_model_sees():
    parts = [ImagePart(RED), TextPart("a b"), EndOfChunk(), TextPart(" c")]
    found = encode(parts, TOKENIZER, PREPROCESSING)
    assert found.tokens == [BOS, IMAGE, 97, 32, 98, END, 32, 99]
    assert found.is_text == [False, False, True, True, True, False, True, True]
    np.testing.assert_array_equal(found.media, [[RED]])


def test_a_model_that_never_saw_bos_gets_none():
    bare = TOKENIZER.with_conventions(("<EOC>", "<image>"), starts_with_bos=False)
    found = encode([ImagePart(RED), TextPart("a"), EndOfChunk()], bare, PREPROCESSING)
    assert found.tokens == [260, 97, 259]
    assert found.is_text == [False, True, False]


def test_an_image_wrapped_and_a_document_that_ends_as_in_idefics():
    """Without a token for a chunk's end the text's end is it, and what follows sees no image."""
    idefics = TOKENIZER.with_conventions(
        ("<fake_token_around_image>", "<image>"), starts_with_bos=True
    )
    parts = [ImagePart(RED), TextPart("a"), EndOfChunk(), TextPart("b"), ImagePart(RED)]
    found = encode([*parts, ImagePart(BLUE), TextPart("c")], idefics, PREPROCESSING)
    around, image, end = 259, 260, 257
    assert found.tokens == [
        *(BOS, around, image, around, 97, end, 98),
        *(around, image, around, image, around, 99),
    ]
    assert [i for i, text in enumerate(found.is_text) if text] == [4, 6, 12]
    for side, real in (("left", slice(-13, None)), ("right", slice(0, 13))):
        batch = to_batch([found], idefics, SHAPE, side=side)
        assert batch.media_index[0, real].tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 2, 2, 3, 3, 3]


def test_text_that_looks_like_a_special_token_stays_text():
    found = encode([TextPart("<image>")], TOKENIZER, PREPROCESSING)
    assert found.tokens == [BOS, *b"<image>"]


def test_features_take_the_place_of_a_picture():
    features = np.ones((5, 7), np.float32)
    found = encode([ImagePart(features)], TOKENIZER, PREPROCESSING)
    np.testing.assert_array_equal(found.media[0], features[None])
    batch = to_batch([found], TOKENIZER, SHAPE, side="left")
    assert batch.media.shape == (1, 1, 1, 5, 7)


LONG = Encoded(
    [BOS, IMAGE, 97, END, IMAGE, 98],
    [False, False, True, False, False, True],
    [RED[None], BLUE[None]],
)
SHORT = Encoded([BOS, 99], [False, True], [])


def test_a_batch_padded_on_the_left():
    batch = check(to_batch([LONG, SHORT], TOKENIZER, SHAPE, side="left"))
    assert batch.tokens.tolist() == [
        [PAD, PAD, BOS, IMAGE, 97, END, IMAGE, 98],
        [PAD, PAD, PAD, PAD, PAD, PAD, BOS, 99],
    ]
    assert batch.token_mask.astype(int).tolist() == [[0, 0, 1, 1, 1, 1, 1, 1], [0] * 6 + [1, 1]]
    assert batch.loss_mask.astype(int).tolist() == [[0, 0, 0, 0, 1, 0, 0, 1], [0] * 7 + [1]]
    assert batch.media_index.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2], [0] * 8]
    np.testing.assert_array_equal(batch.media[0, :, 0], [RED, BLUE])
    assert batch.media_mask[..., 0].tolist() == [[True, True], [False, False]]


def test_a_batch_padded_on_the_right():
    batch = check(to_batch([LONG, SHORT], TOKENIZER, SHAPE, side="right"))
    assert batch.tokens[0].tolist() == [BOS, IMAGE, 97, END, IMAGE, 98, PAD, PAD]
    assert batch.media_index[0].tolist() == [0, 1, 1, 1, 2, 2, 2, 2]
    assert batch.loss_mask[1].tolist() == [False, True] + [False] * 6


def test_text_alone_has_one_padded_media():
    batch = check(to_batch([SHORT], TOKENIZER, SHAPE, side="left"))
    assert batch.media.shape == (1, 1, 1, 4, 4, 3)
    assert not batch.media_mask.any()


@pytest.mark.parametrize(
    ("tokens", "length"), [(1, 4), (4, 4), (5, 8), (16, 16), (17, 32), (33, 64)]
)
def test_lengths_are_rounded_up(tokens, length):
    assert padded_length(tokens) == length
