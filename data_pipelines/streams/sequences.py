"""One document to one training sequence, the paper's way; all chance comes from one generator.

Paper: section 2.4, appendix A.1.2 and A.3.1. A page becomes

    <BOS>Cute pics of my pets!<EOC><image>My puppy in the grass.<EOC><image>My cat.<EOC><EOS>

of which a random window of `num_tokens` tokens is taken, with the first `max_media` images in it; a
pair becomes `<BOS><image>caption<EOC><EOS>`, a text for a language model alone `<BOS>text<EOS>`, a
question with its answer `<BOS><image>question answer<EOC>`, of which the answer alone is learnt.
Where the paper is silent, it is done as follows:

*   `<EOC>` stands before every `<image>` but one that directly follows `<BOS>`. Of published models
    some never saw `<BOS>`, some no `<EOC>`, and some have tokens around `<image>`: their tokenizers
    say so (`prefix`, `chunk_end`, `image_tag`), and what is said of a tag is of all its tokens.
*   The window is uniform among those that hold an image; the paper does not say what is done with a
    window that holds none. A pair is never windowed: a long caption loses its end.
*   An image beyond `max_media` is dropped with its tag and the `<EOC>` before it; its text stays.
*   `media_index` (phi). The tags cut a sequence into chunks, each from one `<image>`, inclusive, to
    the next. A chunk sees its own image ("last"), or, with probability `p_next` for the whole page,
    the image that ends it ("next"). Thus text before the first image sees nothing under "last" and
    the first image under "next", text after the last image sees nothing under "next", and a tag
    always sees what the word it predicts sees. Padding sees nothing.
*   v1 gives pairs "indices all 1"; here their `<BOS>` is 0, as it is when a prompt is read.
*   The loss counts text, `<EOC>` and `<EOS>`; not `<BOS>`, `<image>`, padding, nor the first token
    of a window, which nothing predicts. Of a question it counts the answer and `<EOC>`.
"""

import dataclasses
import itertools

import numpy as np

from data_pipelines.errors import BadRecord
from flamingo_jax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class InterleavedText:
    """A text and where in it the media stand."""

    text: bytes  # UTF-8
    media_positions: np.ndarray  # int[num_media], byte offsets into text, non-decreasing


@dataclasses.dataclass(frozen=True)
class TrainingSequence:
    """One row of a batch but for its media, which `kept_media` names."""

    tokens: np.ndarray  # i32[T]
    token_mask: np.ndarray  # bool[T], False on padding
    loss_mask: np.ndarray  # bool[T], True where the prediction of this token is scored
    media_index: np.ndarray  # i32[T], phi: from 1 into kept_media; 0 is none
    kept_media: np.ndarray  # i32[K], which of the document's media are in the sequence


def page_sequence(
    document: InterleavedText,
    tokenizer: Tokenizer,
    rng: np.random.Generator,
    *,
    num_tokens: int,
    max_media: int,
    p_next: float = 0.5,
    random_window: bool = True,
) -> TrainingSequence:
    """A window of an interleaved page.

    For evaluation: `p_next=0`, `random_window=False`, which takes the page's beginning, or where
    no image begins there, the window from the first image on. Raises BadRecord with the reason
    `no_media`, `bad_positions` or `not_utf8`.
    """
    tokens, tags = _page_tokens(document, tokenizer)
    images = tags[:, 1]
    start = _window_start(len(tokens), images, num_tokens, rng if random_window else None)
    stop = min(start + num_tokens, len(tokens))
    inside = np.flatnonzero((images >= start) & (images < stop))
    kept, dropped = inside[:max_media], tags[inside[max_media:]]
    gone = [np.arange(first, last) for first, _, last in dropped]
    positions = np.setdiff1d(np.arange(start, stop), np.concatenate([[], *gone]))
    is_tag = np.isin(positions, images[kept])
    last = np.cumsum(is_tag)
    following = np.where(last < len(kept), last + 1, 0)
    return _padded(
        tokens[positions],
        scored=~np.isin(tokens[positions], tokenizer.image_tag([])),
        media_index=following if rng.random() < p_next else last,
        kept_media=kept,
        num_tokens=num_tokens,
        pad_id=tokenizer.pad_id,
    )


def pair_sequence(
    document: InterleavedText,
    tokenizer: Tokenizer,
    rng: np.random.Generator,
    *,
    num_tokens: int,
    prepend_space: float = 0.5,
    template: str = "{}",
    score_template: bool = True,
) -> TrainingSequence:
    """An image and its caption, the caption put in the place of `{}` in `template`.

    With probability `prepend_space` the text begins with a single space (appendix A.1.2: it makes
    the model indifferent to how a tokenizer treats a word's leading space). `score_template=False`
    leaves the template's words before the caption out of the loss. Raises BadRecord with the reason
    `not_a_pair`, `no_text` or `not_utf8`.
    """
    if len(document.media_positions) != 1:
        raise BadRecord(
            "not_a_pair", f"a pair of {len(document.media_positions)} media: it must have 1"
        )
    caption = _decode(document.text)
    if not caption.strip():
        raise BadRecord("no_text", "a pair without a caption")
    before, _, after = template.partition("{}")
    before = (" " if rng.random() < prepend_space else "") + before
    text = tokenizer.encode(before + caption + after)
    num_fixed = 0 if score_template else _common_prefix(tokenizer.encode(before), text)
    tag = tokenizer.image_tag([])
    first_word = len(tokenizer.prefix) + len(tag)
    image = len(tokenizer.prefix) + tag.index(tokenizer.image_id)
    tokens = [*tokenizer.prefix, *tag, *text, *tokenizer.chunk_end, tokenizer.eos_id]
    positions = np.arange(min(len(tokens), num_tokens))
    return _padded(
        np.asarray(tokens, np.int32)[positions],
        scored=positions >= first_word + num_fixed,
        media_index=(positions >= image).astype(np.int32),
        kept_media=np.zeros(1, np.int32),
        num_tokens=num_tokens,
        pad_id=tokenizer.pad_id,
    )


def answer_sequence(
    document: InterleavedText, answer_start: int, tokenizer: Tokenizer, *, num_tokens: int
) -> TrainingSequence:
    """An image, a prompt and, from byte `answer_start` of the text on, the answer.

    Token by token what evaluation asks and the answer it hopes for: the answer is encoded as
    candidates are, and what ends it is what ends a written answer. Raises BadRecord with the
    reason `not_a_pair`, `bad_answer_start`, `too_long` (the answer's end would be lost) or
    `not_utf8`.
    """
    if len(document.media_positions) != 1:
        raise BadRecord(
            "not_a_pair", f"a question about {len(document.media_positions)} media: want 1"
        )
    if not 0 <= answer_start < len(document.text):
        raise BadRecord(
            "bad_answer_start",
            f"the answer begins at byte {answer_start} of a text of {len(document.text)}",
        )
    prompt = _decode(document.text[:answer_start])
    answer = _decode(document.text[answer_start:])
    tag = tokenizer.image_tag([])
    before = [*tokenizer.prefix, *tag, *tokenizer.encode(prompt)]
    tokens = [*before, *tokenizer.encode_behind(prompt, answer), tokenizer.end_of_chunk_id]
    if len(tokens) > num_tokens:
        raise BadRecord(
            "too_long", f"{len(tokens)} tokens with the answer: num_tokens={num_tokens}"
        )
    positions = np.arange(len(tokens))
    image = len(tokenizer.prefix) + tag.index(tokenizer.image_id)
    return _padded(
        np.asarray(tokens, np.int32),
        scored=positions >= len(before),
        media_index=(positions >= image).astype(np.int32),
        kept_media=np.zeros(1, np.int32),
        num_tokens=num_tokens,
        pad_id=tokenizer.pad_id,
    )


def text_sequence(
    document: InterleavedText,
    tokenizer: Tokenizer,
    rng: np.random.Generator,
    *,
    num_tokens: int,
    random_window: bool = True,
) -> TrainingSequence:
    """A document's text between `<BOS>` and `<EOS>`, or a window of it; its media are left out.

    The window is uniform among all; for evaluation (`random_window=False`) it is the beginning.
    Raises BadRecord with the reason `no_text` or `not_utf8`.
    """
    text = _decode(document.text)
    if not text.strip():
        raise BadRecord("no_text", "a document without text")
    tokens = [*tokenizer.prefix, *tokenizer.encode(text), tokenizer.eos_id]
    last_start = max(0, len(tokens) - num_tokens)
    start = int(rng.integers(last_start + 1)) if random_window else 0
    window = np.asarray(tokens[start : start + num_tokens], np.int32)
    return _padded(
        window,
        scored=np.ones(len(window), bool),
        media_index=np.zeros(len(window), np.int32),
        kept_media=np.zeros(0, np.int32),
        num_tokens=num_tokens,
        pad_id=tokenizer.pad_id,
    )


def _page_tokens(
    document: InterleavedText, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:  # i32[n], i64[num_media, 3]
    """Tokens; and of each image, where its tag begins, with the chunk's end before it, where
    `<image>` stands, and where what follows begins."""
    cuts = [0, *map(int, document.media_positions), len(document.text)]
    if len(cuts) == 2:
        raise BadRecord("no_media", "a page without media")
    if any(a > b for a, b in itertools.pairwise(cuts)):
        raise BadRecord(
            "bad_positions",
            f"media positions {cuts[1:-1]} are not offsets in order into {cuts[-1]} bytes of text",
        )
    tokens, tags = [*tokenizer.prefix], []
    begun = len(tokens)
    for number, (start, stop) in enumerate(itertools.pairwise(cuts), 1):
        if start < stop:
            tokens += tokenizer.encode(_decode(document.text[start:stop]))
        first = len(tokens)
        if first > begun:
            tokens += tokenizer.chunk_end
        if number < len(cuts) - 1:
            tag = tokenizer.image_tag(tokens)
            image = len(tokens) + tag.index(tokenizer.image_id)
            tokens += tag
            tags.append((first, image, len(tokens)))
    tokens.append(tokenizer.eos_id)
    return np.asarray(tokens, np.int32), np.asarray(tags)


def _window_start(num: int, tags: np.ndarray, num_tokens: int, rng: np.random.Generator | None):
    """Where the window begins: at random among those with a tag, or the first without `rng`."""
    last_start = max(0, num - num_tokens)
    if rng is None:
        return 0 if tags[0] < num_tokens else min(int(tags[0]), last_start)
    holds_tag = np.zeros(last_start + 1, bool)
    for tag in tags:
        holds_tag[max(0, tag - num_tokens + 1) : tag + 1] = True
    return int(rng.choice(np.flatnonzero(holds_tag)))


def _padded(
    tokens: np.ndarray,  # i32[n], n at most num_tokens
    scored: np.ndarray,  # bool[n]
    media_index: np.ndarray,  # int[n]
    kept_media: np.ndarray,
    num_tokens: int,
    pad_id: int,
) -> TrainingSequence:
    def pad(values: np.ndarray, fill: int, dtype: type) -> np.ndarray:
        row = np.full(num_tokens, fill, dtype)
        row[: len(values)] = values
        return row

    scored = scored & (np.arange(len(tokens)) > 0)
    return TrainingSequence(
        tokens=pad(tokens, pad_id, np.int32),
        token_mask=pad(np.ones(len(tokens)), False, bool),
        loss_mask=pad(scored, False, bool),
        media_index=pad(media_index, 0, np.int32),
        kept_media=kept_media.astype(np.int32),
    )


def _decode(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRecord(
            "not_utf8", f"text is not UTF-8, or a media position lies inside a letter: {error}"
        ) from error


def _common_prefix(a: list[int], b: list[int]) -> int:
    """How many leading tokens agree. Where a template's last space has joined the caption's first
    word in one token, that token belongs to the caption."""
    num = 0
    while num < min(len(a), len(b)) and a[num] == b[num]:
        num += 1
    return num
