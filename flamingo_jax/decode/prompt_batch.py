"""Prompts to one batch of arrays: `<BOS>`, text, media tags and end-of-chunk marks as tokens.

Exactly what a prompt says is what the model sees, `<BOS>` apart, and what a model was trained to
see around each image: no space, mark or template is added. Pictures go through
`images.decode_image`, the one training uses, and the frames of videos too. Prompts of unequal
length are padded on the left for continuation, so that all next tokens stand in one column, or on
the right for scoring; the model counts real tokens only, so the side changes nothing.

Of a video 30 frames are taken, 3 a second (paper, appendix A.1.1), from its middle where it is
longer than that. Where it is shorter the missing frames are masked, and temporal embeddings stay
those of 30 frames, so that a frame's place in time has one embedding in all videos.
"""

import os
import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from flamingo_jax.batch import Batch
from flamingo_jax.config import FlamingoConfig, ImagePreprocessing, LanguageModelConfig
from flamingo_jax.images import BadMedia, decode_image
from flamingo_jax.prompts import EndOfChunk, ImagePart, Part, PromptError, TextPart, VideoPart
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.videos import decode_video


class VideoSampling(NamedTuple):
    """Which frames of a video file a prompt shows; a given array of frames is taken whole."""

    num_frames: int = 30
    fps: float = 3.0


class Encoded(NamedTuple):
    """One prompt as tokens, which of them are text, and its media."""

    tokens: list[int]
    is_text: list[bool]
    media: list[np.ndarray]  # u8[n, H, W, 3], n 1 for a picture; or given features float[n, P, E]
    num_frames: int = 1  # F, places for frames; a video that is short has fewer
    ending: str = ""  # the text at its end, which what follows goes on from

    @property
    def media_shape(self) -> tuple[int, int]:
        """(media, frames), what prompts of one batch should share."""
        return len(self.media), self.num_frames


def encode(
    parts: Sequence[Part],
    tokenizer: Tokenizer,
    preprocessing: ImagePreprocessing,
    sampling: VideoSampling = VideoSampling(),  # noqa: B008, a constant
) -> Encoded:
    """Tokens and media of one prompt.

    Raises:
      BadMedia: a picture or a video that cannot be decoded.
      PromptError: a video, and PyAV is not installed.
    """
    tokens, media, num_frames = [*tokenizer.prefix], [], 1
    is_text, ending = [False] * len(tokens), ""
    for part in parts:
        match part:
            case TextPart(text):
                new = tokenizer.encode_behind(ending, text)
                tokens += new
                is_text += [True] * len(new)
                ending += text
                continue
            case EndOfChunk():
                tokens.append(tokenizer.end_of_chunk_id)
            case ImagePart(image):
                tokens += tokenizer.image_tag(tokens)
                media.append(_features_or_pixels(image, preprocessing))
            case VideoPart(video):
                tokens += tokenizer.image_tag(tokens)
                media.append(_frames(video, preprocessing, sampling))
                is_whole = isinstance(video, np.ndarray) and video.dtype == np.uint8
                places = 0 if is_whole else sampling.num_frames
                num_frames = max(num_frames, places, len(media[-1]))
        is_text += [False] * (len(tokens) - len(is_text))
        ending = ""
    return Encoded(tokens, is_text, media, num_frames, ending)


def _features_or_pixels(image, preprocessing: ImagePreprocessing) -> np.ndarray:
    """Float arrays of two dims are features made before; everything else is a picture."""
    if isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype != np.uint8:
        return image[None]
    try:
        return decode_image(image, preprocessing)[None]
    except BadMedia as error:
        raise _named(error, image) from error


def _frames(video, preprocessing: ImagePreprocessing, sampling: VideoSampling) -> np.ndarray:
    """u8[n, H, W, 3] of a file, its bytes, or u8[n, height, width, 3]; features as they are."""
    if isinstance(video, np.ndarray):
        if video.ndim == 3 and video.dtype != np.uint8 and len(video):
            return video
        if video.ndim != 4 or not len(video):
            raise PromptError(
                f"video: array {video.dtype}{list(video.shape)}, want uint8 [F, H, W, 3]"
            )
        return np.stack([decode_image(frame, preprocessing) for frame in video])
    try:
        return decode_video(video, preprocessing, **sampling._asdict())
    except BadMedia as error:
        raise _named(error, video) from error
    except ModuleNotFoundError as error:
        raise PromptError("video: PyAV is not installed: pip install 'flamingo_jax[data]'") from (
            error
        )


def _named(error: BadMedia, media) -> BadMedia:
    """The error with the file's name before it."""
    is_path = isinstance(media, str | os.PathLike)
    return BadMedia(error.reason, f"{media}: {error}") if is_path else error


def check_media(prompt: Encoded, config: FlamingoConfig) -> None:
    """PromptError for features of another encoder, or more frames than the resampler takes."""
    vision = config.vision
    for media in prompt.media:
        if media.ndim == 3 and media.shape[1:] != (vision.num_features, vision.width):
            raise PromptError(
                f"image or frame: array {media.dtype}{list(media.shape[1:])}, want a picture "
                f"as uint8, or its features [{vision.num_features}, {vision.width}]"
            )
    try:
        config.resampler.check_num_frames(prompt.num_frames, "video frames")
    except ValueError as error:
        raise PromptError(str(error)) from error


def check_length(prompt: Encoded, language_model: LanguageModelConfig) -> None:
    """Warns of more tokens than the language model was trained to read; learned positions, which
    end there, are an error of the model's."""
    num_tokens, most = len(prompt.tokens), language_model.max_length
    if num_tokens > most and language_model.positions != "learned":
        warnings.warn(
            f"a prompt of {num_tokens} tokens, and the language model was trained to read {most}: "
            "what it makes of more may be noise; shorten the prompt",
            stacklevel=2,
        )


def to_batch(
    prompts: Sequence[Encoded],
    tokenizer: Tokenizer,
    media_shape: tuple[int, ...],
    *,
    side: Literal["left", "right"],
    min_length: int = 0,
) -> Batch:
    """One batch; `loss_mask` marks text tokens. Lengths are rounded up to save recompilation.

    PromptError where some media are pixels and others features.
    """
    length = padded_length(max(min_length, *(len(p.tokens) for p in prompts)))
    num_media = max(1, *(len(p.media) for p in prompts)) if prompts else 1
    num_frames = max(p.num_frames for p in prompts)
    kinds = {(i.shape[1:], i.dtype) for p in prompts for i in p.media}
    if len(kinds) > 1:
        raise PromptError("pictures and cached features in one call: give either, or call twice")
    b = len(prompts)
    tokens = np.full((b, length), tokenizer.pad_id, np.int32)
    token_mask, loss_mask = np.zeros((b, length), bool), np.zeros((b, length), bool)
    shape, dtype = next(iter(kinds), (media_shape, np.dtype(np.uint8)))
    media = np.zeros((b, num_media, num_frames, *shape), dtype)
    media_mask = np.zeros((b, num_media, num_frames), bool)
    for row, prompt in enumerate(prompts):
        n = len(prompt.tokens)
        place = slice(length - n, length) if side == "left" else slice(0, n)
        tokens[row, place], token_mask[row, place] = prompt.tokens, True
        loss_mask[row, place] = prompt.is_text
        for i, frames in enumerate(prompt.media):
            media[row, i, : len(frames)], media_mask[row, i, : len(frames)] = frames, True
    media_index = _media_index(tokens, tokenizer)
    return Batch(tokens, token_mask, loss_mask, media_index, media, media_mask)


def _media_index(
    tokens: np.ndarray,  # i32[B, T]
    tokenizer: Tokenizer,
) -> np.ndarray:  # i32[B, T], phi
    """The images up to and with each token; none behind an end of text, where chunks end so."""
    is_image = tokens == tokenizer.image_id
    index = np.cumsum(is_image, axis=1, dtype=np.int32)
    if tokenizer.end_of_chunk_id != tokenizer.eos_id:
        return index
    place = 1 + np.arange(tokens.shape[1])
    image = np.maximum.accumulate(np.where(is_image, place, 0), axis=1)
    end = np.maximum.accumulate(np.where(tokens == tokenizer.eos_id, place, 0), axis=1)
    before = np.pad(end, [(0, 0), (1, 0)])[:, :-1]  # the end itself is of the document it ends
    return np.where(before > image, 0, index)


def padded_length(num_tokens: int) -> int:
    """Rounded up, so that prompts of about the same length share one compiled program."""
    multiple = 4 if num_tokens <= 16 else 32
    return -(-num_tokens // multiple) * multiple
