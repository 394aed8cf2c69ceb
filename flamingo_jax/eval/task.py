"""A benchmark: what is asked, with which examples in the prompt, and how answers are scored.

Paper: section 3 and the appendix on evaluation. Open-ended tasks are answered by beam search,
close-ended ones by the log-likelihood of candidate answers. Support examples come from the
benchmark's training split, 2,048 of them drawn once, of classification some of each class.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from flamingo_jax.eval.prompt_template import PromptTemplate
from flamingo_jax.prompts import ImagePart, VideoPart

NUM_SUPPORT = 2048
NUM_OF_CLASS = 32  # of each class there are in a classification's support set
QUESTION = PromptTemplate("Question: {question} Answer: {answer}")


class TaskError(ValueError):
    """A benchmark that cannot be read; the message is one line: what, where, how to mend it."""


@dataclasses.dataclass(frozen=True)
class Example:
    """A picture or video with its answer; of a query the answers that are right."""

    id: str
    media: ImagePart | VideoPart
    answer: str  # what a support example shows
    references: tuple[str, ...]  # what a prediction is held against
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of the template
    candidates: tuple[str, ...] = ()  # of this query alone; else the task's
    relevance: tuple[float, ...] = ()  # of each candidate, where it is graded
    group: str = ""  # such as a question's type, for means over groups

    @property
    def path(self) -> pathlib.Path:
        """Where the picture or video lies: the same for all examples of one."""
        return self.media.image if isinstance(self.media, ImagePart) else self.media.video


@dataclasses.dataclass(frozen=True)
class Task:
    """One benchmark, read."""

    name: str
    split: str  # what the queries are, such as "test (Karpathy)"
    template: PromptTemplate
    metric: str  # a name in `metrics.METRICS`
    queries: Sequence[Example]
    support: Sequence[Example]
    candidates: tuple[str, ...] = ()
    max_tokens: int = 10
    num_support: int | None = NUM_SUPPORT  # drawn from `support`; None: all
    per_answer: int | None = None  # drawn of each answer instead (classification)
    max_shots: int | None = None  # with more the paper does not ask it
    is_own: bool = False  # a user's, of which no paper prints scores
    rewrite: Callable[[str], str] = str  # of a written answer before it is scored, such as stems
    training: Callable[[], Iterable[Example]] | None = None  # where that is more than `support`

    def candidates_of(self, query: Example) -> tuple[str, ...]:
        """The answers to choose from; none where the task is open-ended."""
        return query.candidates or self.candidates

    def training_examples(self) -> Iterable[Example]:
        """What a model is fine-tuned on, each with an answer of its own; never a query."""
        return self.support if self.training is None else self.training()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes when any example does, wherever its files lie; 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for example in (*self.queries, None, *self.support):
            values = example and (
                *(example.id, example.path.name, example.answer, example.references),
                *(example.fields, example.candidates, example.relevance, example.group),
            )
            digest.update(repr(values).encode(errors="backslashreplace"))
        digest.update(repr((self.template, self.candidates)).encode(errors="backslashreplace"))
        return digest.hexdigest()[:16]


def each_caption(examples: Iterable[Example]) -> Iterator[Example]:
    """An example for each caption of a picture, where a support example shows the first."""
    for example in examples:
        for number, caption in enumerate(example.references):
            yield dataclasses.replace(example, id=f"{example.id}_{number}", answer=caption)


def shown_answer(answers: Sequence[str]) -> str:
    """The most frequent answer, of equal ones the first, which a support example shows."""
    return max(answers, key=answers.count)
