"""Queries of a benchmark as prompts: which examples each has, in which orders.

Everything that is drawn is drawn for all queries before the model sees any, so that a number of
shots that does not fit the model's context is known at once ("out of context").
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from experiments.evaluation.media import Media
from experiments.evaluation.settings import Settings
from flamingo_jax.decode import prompt_batch
from flamingo_jax.eval import few_shot, metrics, retrieval
from flamingo_jax.eval.prompt_template import PromptTemplate
from flamingo_jax.eval.task import Example, Task
from flamingo_jax.model import Model
from flamingo_jax.prompts import EndOfChunk, Part, TextPart


@dataclasses.dataclass(frozen=True)
class Asked:
    """A query with its examples; its prompts are made when they are wanted."""

    template: PromptTemplate
    query: Example
    shots: tuple[Example, ...]
    orders: tuple[tuple[int, ...], ...]  # that the examples are shown in
    with_media: bool  # of the examples

    @property
    def media(self) -> list[Part]:
        """Of all its prompts, the query's last."""
        examples = [shot.media for shot in self.shots] if self.with_media else []
        return [*examples, self.query.media]

    @property
    def prompts(self) -> list[tuple[Part, ...]]:
        """One for each order."""
        return [
            few_shot.task_prompt(
                self.template,
                [self.shots[i] for i in order],
                self.query,
                with_media=self.with_media,
            )
            for order in self.orders
        ]


class RowError(Exception):
    """Why a row cannot be asked; the others can."""


def ask(
    task: Task,
    num_shots: int,
    seed: int,
    *,
    queries: Sequence[Example],
    pool: Sequence[Example],
    media: Media,
    settings: Settings,
    model: Model,
) -> list[Asked]:
    """The prompts of all queries; RowError where they cannot be made, or do not fit."""
    closed = metrics.METRICS[task.metric].closed
    texts = settings.zero_shot_texts
    count = few_shot.num_examples(num_shots, closed=closed, zero_shot_texts=texts)
    if task.max_shots is not None and num_shots > task.max_shots:
        raise RowError(f"not asked with more than {task.max_shots} examples, as in the paper")
    held = collections.Counter(str(example.path) for example in pool)
    room = len(pool) - max((held[str(query.path)] for query in queries), default=0)
    if count > room:
        raise RowError(f"{count} examples wanted, {room} usable in the support set")
    by_similarity = settings.retrieval == "rices" and num_shots > 0
    chosen = _choose(queries, pool, count, seed, media if by_similarity else None)
    num_orders = settings.permutations if closed and num_shots else 1
    asked = []
    for query, row in zip(queries, chosen, strict=True):
        shots = tuple(pool[i] for i in row)
        orders = tuple(few_shot.orders(len(shots), num_orders, query.id, seed))
        asked.append(Asked(task.template, query, shots, orders, with_media=num_shots > 0))
    _check_fits(task, asked, model)
    return asked


def _choose(
    queries: Sequence[Example],
    pool: Sequence[Example],
    count: int,
    seed: int,
    media: Media | None,
) -> np.ndarray:  # i64[queries, count], rows of the pool
    """The most similar where `media` is given, else random ones; never the query's own picture."""
    query_paths, pool_paths = ([str(e.path) for e in group] for group in (queries, pool))
    if media is None:
        ids = [query.id for query in queries]
        return retrieval.random_shots(query_paths, pool_paths, count, seed=seed, draw_ids=ids)
    try:
        return retrieval.rices_shots(
            media.pooled(queries),
            media.pooled(pool),
            count,
            query_ids=query_paths,
            support_ids=pool_paths,
        )
    except ValueError as error:  # features without a direction, of a blank picture
        raise RowError(f"no similar examples: {error}") from error


def _check_fits(task: Task, asked: Sequence[Asked], model: Model) -> None:
    """RowError where a prompt with its answer is longer than the model's context."""
    encode = functools.cache(model.tokenizer.encode)

    def length(parts: Sequence[Part]) -> int:
        tokens = [*model.tokenizer.prefix]
        for part in parts:
            if isinstance(part, TextPart):
                tokens += encode(part.text)
            elif isinstance(part, EndOfChunk):
                tokens.append(model.tokenizer.end_of_chunk_id)
            else:
                tokens += model.tokenizer.image_tag(tokens)
        return len(tokens)

    longest = max(length(one.prompts[0]) for one in asked)
    answer = task.max_tokens
    if metrics.METRICS[task.metric].closed:
        sets = {task.candidates_of(one.query) for one in asked}
        texts = {task.template.continuation(candidate) for own in sets for candidate in own}
        answer = 1 + max(len(encode(text)) for text in texts)
    most, needed = model.config.language_model.max_length, longest + answer
    if model.config.language_model.positions == "learned":
        needed = prompt_batch.padded_length(longest) + answer
    if needed > most:
        raise RowError(f"out of context: {needed} tokens, the model reads {most}")
