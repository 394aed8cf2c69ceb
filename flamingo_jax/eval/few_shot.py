"""The prompt of a query after its support examples, and which examples those are.

Paper: section 3.1 and the appendix on prompts. A support example is its picture, its text and the
end of its chunk; the query is its picture and the text up to the answer. The model sees exactly
that: `<BOS>` alone is added later.

    <image>Output: a cat<EOC><image>Output: two dogs<EOC><image>Output:
    <image>Question: what is it? Answer: a cat<EOC><image>Question: and this? Answer:

Open-ended "zero-shot" prompts (in OpenFlamingo and IDEFICS too) hold two examples without their
pictures, which show the form of an answer; close-ended ones hold none, since their candidates have
that form. A model that was fine-tuned on the task knows the form and is asked with none
(`zero_shot_texts` of 0). Shots are drawn from the seed and the query's id, so a subset of queries
is asked as it is inside the whole; texts without pictures are always drawn at random, for retrieved
ones would give the answer away.
"""

import math
from collections.abc import Sequence

import numpy as np

from flamingo_jax.eval.prompt_template import PromptTemplate
from flamingo_jax.eval.seeding import query_generator
from flamingo_jax.eval.task import Example, Task
from flamingo_jax.prompts import EndOfChunk, ImagePart, Part, TextPart, VideoPart

NUM_ZERO_SHOT_TEXTS = 2


def task_prompt(
    template: PromptTemplate,
    shots: Sequence[Example],
    query: Example,
    *,
    with_media: bool = True,
) -> tuple[Part, ...]:
    """The few-shot prompt of `query`; `with_media=False` leaves the examples' pictures out."""
    parts: list[Part] = []
    for shot in shots:
        if with_media:
            parts.append(shot.media)
        parts += [TextPart(template.fill(shot.fields, shot.answer)), EndOfChunk()]
    parts.append(query.media)
    if text := template.query(query.fields):
        parts.append(TextPart(text))
    return tuple(parts)


def as_text(parts: Sequence[Part]) -> str:
    """A prompt as the paper prints it, `<image>Output: a cat<EOC>...`, behind its `<BOS>`."""
    marks = {ImagePart: "<image>", VideoPart: "<image>", EndOfChunk: "<EOC>"}
    return "".join(p.text if isinstance(p, TextPart) else marks[type(p)] for p in parts)


def num_examples(
    num_shots: int, *, closed: bool, zero_shot_texts: int = NUM_ZERO_SHOT_TEXTS
) -> int:
    """How many examples a prompt holds: at zero shots texts alone, or none before candidates."""
    return num_shots or (0 if closed else zero_shot_texts)


def support_pool(task: Task, seed: int) -> list[Example]:
    """The examples that shots are drawn from, in the order they have in `task.support`."""
    rows = np.arange(len(task.support))
    generator = np.random.default_rng(seed)
    if task.per_answer is not None:
        by_answer: dict[str, list[int]] = {}
        for row in generator.permutation(rows).tolist():
            by_answer.setdefault(task.support[row].answer, []).append(row)
        rows = np.array([row for own in by_answer.values() for row in own[: task.per_answer]], int)
    elif task.num_support is not None and len(rows) > task.num_support:
        rows = generator.choice(rows, task.num_support, replace=False)
    return [task.support[row] for row in np.sort(rows)]


def orders(num_shots: int, num_orders: int, query_id: str, seed: int) -> list[tuple[int, ...]]:
    """Different orders of the shots, drawn for the query; one is the order they came in.

    Paper: appendix on classification, "prompt ensembling" over six. Fewer where there are fewer.
    """
    if num_orders == 1:
        return [tuple(range(num_shots))]
    wanted = min(num_orders, math.factorial(min(num_shots, 12)))
    generator, found = query_generator(seed, query_id), dict[tuple[int, ...], None]()
    while len(found) < wanted:
        found[tuple(generator.permutation(num_shots).tolist())] = None
    return list(found)
