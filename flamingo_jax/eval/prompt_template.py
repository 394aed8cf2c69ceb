"""How a task writes an example: text with the answer's place and those of what is asked.

Paper: appendix on prompts. `Output: {answer}` is every task's but question answering's,
`Question: {question} Answer: {answer}`. A query ends right before the answer, without the space
that begins the answer's first token. The paper prints the templates with and without a space after
`<image>`; there is none here.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

ANSWER = "answer"
CAPTION = "{}"  # its place in the caption template of a recipe, or of a model
_PLACE = re.compile(r"\{(\w*)\}")


@dataclasses.dataclass(frozen=True)
class PromptTemplate:
    """Text with `{answer}` once, and a place in braces for each field of an example."""

    text: str

    def __post_init__(self):
        places = _PLACE.findall(self.text)
        if places.count(ANSWER) != 1:
            raise ValueError(
                f"template {self.text!r} must hold {{{ANSWER}}} once, as in 'Output: {{{ANSWER}}}'"
            )
        if places[-1] != ANSWER:
            raise ValueError(f"template {self.text!r}: put {{{places[-1]}}} before {{{ANSWER}}}")

    @classmethod
    def of_caption(cls, text: str) -> "PromptTemplate":
        """From a caption template, as "Output: {}" is; ValueError unless that is its one place."""
        if text.count(CAPTION) != 1:
            raise ValueError(
                f"template {text!r} must hold {CAPTION} once, as in 'Output: {CAPTION}'"
            )
        if other := _PLACE.search(text.replace(CAPTION, "")):
            raise ValueError(
                f"template {text!r} has a place {other[0]} beside {CAPTION}: leave it out"
            )
        return cls(text.replace(CAPTION, f"{{{ANSWER}}}"))

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the places other than the answer's."""
        return tuple(name for name in _PLACE.findall(self.text) if name != ANSWER)

    @property
    def keywords(self) -> tuple[str, ...]:
        """What is written before the answer around the fields; a prediction ends at any of it."""
        pieces = [piece.strip() for piece in _PLACE.split(self._before)[::2]]
        return tuple(piece for piece in pieces if piece)

    @property
    def _before(self) -> str:
        return self.text.partition(f"{{{ANSWER}}}")[0]

    def fill(self, fields: Mapping[str, str], answer: str) -> str:
        """The whole text of an example, braces in what is filled in and all."""
        values = {**fields, ANSWER: answer}
        return _PLACE.sub(lambda place: values[place[1]], self.text)

    def query(self, fields: Mapping[str, str]) -> str:
        """The text before the answer."""
        return _PLACE.sub(lambda place: fields[place[1]], self._before).rstrip(" ")

    def continuation(self, answer: str) -> str:
        """What follows `query` where the answer is `answer`; a candidate for scoring."""
        before, _, after = self.text.partition(f"{{{ANSWER}}}")
        return before[len(before.rstrip(" ")) :] + answer + after


def cut_at_keywords(text: str, keywords: Sequence[str]) -> str:
    """The answer alone, where a model goes on to write the next example instead of `<EOC>`.

    The paper cuts predictions at the prompt's keywords before scoring; a new line ends them too.
    Keywords are found as whole words. A single plain word, as in "a {answer}", is none: answers
    hold it themselves.
    """
    lines = text.strip().splitlines()
    first_line = lines[0] if lines else ""
    for keyword in keywords:
        if not keyword or re.fullmatch(r"\w+", keyword):
            continue
        before = r"\b" if re.match(r"\w", keyword) else ""
        after = r"\b" if re.search(r"\w$", keyword) else ""
        first_line = re.split(before + re.escape(keyword) + after, first_line, maxsplit=1)[0]
    return first_line.strip()
