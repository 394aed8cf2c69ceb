"""The paper's few-shot captioning prompt, and the text around a caption.

Paper: section 3.1 and appendix on prompts. A prompt is a tuple of parts in reading order, and the
model sees exactly those: `<BOS>` alone is added later. Support examples are a picture, the text
`Output: {caption}` and the end of its chunk; the query is a picture and `Output:`.

    <image>Output: a cat<EOC><image>Output: two dogs<EOC><image>Output:

"Zero-shot" in the paper (and in OpenFlamingo and IDEFICS) means two examples with their pictures
taken out, which shows the model the form of an answer. The paper prints the template with and
without a space after `<image>`; there is none here.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from flamingo_jax.eval.prompt_template import cut_at_keywords
from flamingo_jax.prompts import EndOfChunk, ImagePart, Part, TextPart

NUM_ZERO_SHOT_TEXTS = 2
PLACEHOLDER = "{}"


@dataclasses.dataclass(frozen=True)
class CaptionTemplate:
    """How a caption is written: `{}` stands for it, and a query ends right before it."""

    text: str = f"Output: {PLACEHOLDER}"

    def __post_init__(self):
        if self.text.count(PLACEHOLDER) != 1:
            raise ValueError(
                f"template {self.text!r} must hold {PLACEHOLDER} once, as in 'Output: {{}}'"
            )

    @property
    def query(self) -> str:
        """The text before a caption, without the space that begins the caption's first token."""
        return self.text.partition(PLACEHOLDER)[0].rstrip(" ")

    def fill(self, caption: str) -> str:
        """The template with `caption` in it, braces in the caption and all."""
        return self.text.replace(PLACEHOLDER, caption)

    def continuation(self, caption: str) -> str:
        """What follows `query` when the caption is `caption`; a candidate for scoring."""
        return self.fill(caption).removeprefix(self.query)


@dataclasses.dataclass(frozen=True)
class Shot:
    """A support example; `image` is whatever `ImagePart` takes, None shows the text alone."""

    image: Any | None
    caption: str


def text_only(shots: Sequence[Shot]) -> list[Shot]:
    """The same examples without their pictures, for the paper's zero-shot prompt."""
    return [dataclasses.replace(shot, image=None) for shot in shots]


def captioning_prompt(
    shots: Sequence[Shot],
    query_image: Any,
    template: CaptionTemplate = CaptionTemplate(),
) -> tuple[Part, ...]:
    """The few-shot prompt that asks for `query_image`'s caption; zero-shot through `text_only`."""
    parts: list[Part] = []
    for shot in shots:
        if shot.image is not None:
            parts.append(ImagePart(shot.image))
        parts += [TextPart(template.fill(shot.caption)), EndOfChunk()]
    parts.append(ImagePart(query_image))
    if template.query:
        parts.append(TextPart(template.query))
    return tuple(parts)


def cut_at_next_prompt(text: str, template: CaptionTemplate) -> str:
    """The caption alone, where a model goes on to write the next example instead of `<EOC>`."""
    return cut_at_keywords(text, [template.query.strip()])
