"""Prompts to one batch of arrays: `<BOS>`, text, media tags and end-of-chunk marks as tokens.

Exactly what a prompt says is what the model sees, `<BOS>` apart: no space, mark or template is
added. Pictures go through `images.decode_image`, the one training uses. Prompts of unequal length
are padded on the left for continuation, so that all next tokens stand in one column, or on the
right for scoring; the model counts real tokens only, so the side changes nothing.
"""

import os
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from flamingo_jax.batch import Batch
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.images import BadMedia, decode_image
from flamingo_jax.prompts import EndOfChunk, ImagePart, Part, PromptError, TextPart, VideoPart
from flamingo_jax.tokenizer import Tokenizer


class Encoded(NamedTuple):
    """One prompt as tokens, which of them are text, and its pictures."""

    tokens: list[int]
    is_text: list[bool]
    images: list[np.ndarray]  # u8[H, W, 3], or float[P, E] where features are given for a picture


def encode(
    parts: Sequence[Part], tokenizer: Tokenizer, preprocessing: ImagePreprocessing
) -> Encoded:
    """Tokens and pictures of one prompt. PromptError on video, BadMedia on a bad picture."""
    tokens, is_text, images = [tokenizer.bos_id], [False], []
    for part in parts:
        match part:
            case TextPart(text):
                new = tokenizer.encode(text)
                tokens += new
                is_text += [True] * len(new)
            case EndOfChunk():
                tokens.append(tokenizer.end_of_chunk_id)
                is_text.append(False)
            case ImagePart(image):
                tokens.append(tokenizer.image_id)
                is_text.append(False)
                images.append(_features_or_pixels(image, preprocessing))
            case VideoPart():
                raise PromptError("this model was built without video: use images in the prompt")
    return Encoded(tokens, is_text, images)


def _features_or_pixels(image, preprocessing: ImagePreprocessing) -> np.ndarray:
    """Float arrays of two dims are features from a cache; everything else is a picture."""
    if isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype != np.uint8:
        return image
    try:
        return decode_image(image, preprocessing)
    except BadMedia as error:
        if not isinstance(image, str | os.PathLike):
            raise
        raise BadMedia(error.reason, f"{image}: {error}") from error


def to_batch(
    prompts: Sequence[Encoded],
    tokenizer: Tokenizer,
    media_shape: tuple[int, ...],
    *,
    side: Literal["left", "right"],
) -> Batch:
    """One batch; `loss_mask` marks text tokens. Lengths are rounded up to save recompilation."""
    length = padded_length(max(len(p.tokens) for p in prompts))
    num_media = max(1, *(len(p.images) for p in prompts)) if prompts else 1
    b = len(prompts)
    tokens = np.full((b, length), tokenizer.pad_id, np.int32)
    token_mask, loss_mask = np.zeros((b, length), bool), np.zeros((b, length), bool)
    shape = next((i.shape for p in prompts for i in p.images), media_shape)
    dtype = next((i.dtype for p in prompts for i in p.images), np.dtype(np.uint8))
    media = np.zeros((b, num_media, 1, *shape), dtype)
    media_mask = np.zeros((b, num_media, 1), bool)
    for row, prompt in enumerate(prompts):
        n = len(prompt.tokens)
        place = slice(length - n, length) if side == "left" else slice(0, n)
        tokens[row, place], token_mask[row, place] = prompt.tokens, True
        loss_mask[row, place] = prompt.is_text
        for i, image in enumerate(prompt.images):
            media[row, i, 0], media_mask[row, i, 0] = image, True
    media_index = np.cumsum(tokens == tokenizer.image_id, axis=1, dtype=np.int32)
    return Batch(tokens, token_mask, loss_mask, media_index, media, media_mask)


def padded_length(num_tokens: int) -> int:
    """Rounded up, so that prompts of about the same length share one compiled program."""
    multiple = 4 if num_tokens <= 16 else 32
    return -(-num_tokens // multiple) * multiple
