"""One score: what a model answers to a task's prompts, and what that is worth."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from experiments.evaluation.asking import Asked
from experiments.evaluation.media import Media, Tick
from experiments.evaluation.prediction_file import Line, PredictionFile
from flamingo_jax.eval import few_shot, metrics
from flamingo_jax.eval.bootstrap import Interval
from flamingo_jax.eval.prompt_template import cut_at_keywords
from flamingo_jax.eval.task import Example, Task
from flamingo_jax.model import Decoding, Model
from flamingo_jax.prompts import Prompt, TextPart

NUM_BEAMS = 3  # the paper's
# Of each part of the model's calls, as they are cut among devices:
_AT_ONCE = 32  # queries between two writes, fewer
_MAX_BYTES = 1 << 30  # where the features of their pictures and videos would take more


@dataclasses.dataclass(frozen=True)
class Score:
    """A row's score, in the unit papers print."""

    interval: Interval
    interval_kind: str
    of_seeds: tuple[float, ...]
    groups: dict[str, float]


def predict(
    model: Model,
    task: Task,
    asked: Sequence[Asked],
    seed: int,
    media: Media,
    file: PredictionFile,
    tick: Tick,
) -> None:
    """Makes the predictions that are not in `file` yet, and writes them there."""
    for chunk in _chunks(asked, media, model.shards):
        todo = [one for one in chunk if (seed, one.query.id) not in file.lines]
        if todo:
            answers = _answers(model, task, todo, media)
            file.add(
                [_line(task, one, seed, answer) for one, answer in zip(todo, answers, strict=True)]
            )
        tick(len(chunk))


def _chunks(asked: Sequence[Asked], media: Media, shards: int) -> Iterator[list[Asked]]:
    """Queries that are asked together."""
    chunk: list[Asked] = []
    held = 0
    for one in asked:
        own = media.num_bytes(one.media)
        if chunk and (len(chunk) == shards * _AT_ONCE or held + own > shards * _MAX_BYTES):
            yield chunk
            chunk, held = [], 0
        chunk.append(one)
        held += own
    if chunk:
        yield chunk


def _answers(model: Model, task: Task, asked: Sequence[Asked], media: Media) -> list[Line]:
    shown = media.shown([parts for one in asked for parts in one.prompts])
    prompts = [Prompt("", parts) for parts in shown]
    if not metrics.METRICS[task.metric].closed:
        decoding = Decoding("beam", num_beams=NUM_BEAMS, max_tokens=task.max_tokens)
        written = model.generate(prompts, decoding)
        keywords = task.template.keywords
        return [
            {"text": cut_at_keywords(w.text, keywords), "written": w.text, "logprob": w.log_prob}
            for w in written
        ]
    texts = [
        [task.template.continuation(c) for c in task.candidates_of(one.query)]
        for one in asked
        for _ in one.orders
    ]
    found = iter(model.likelihoods(prompts, texts))
    answers = []
    for one in asked:
        log_probs = np.mean([next(found) for _ in one.orders], axis=0, dtype=np.float64)
        best = task.candidates_of(one.query)[int(log_probs.argmax())]
        answers.append({"text": best, "logprobs": [round(float(x), 5) for x in log_probs]})
    return answers


def _line(task: Task, one: Asked, seed: int, answer: Line) -> Line:
    query = one.query
    text = task.template.query(query.fields)
    return {
        "id": query.id,
        "seed": seed,
        "support": [shot.id for shot in one.shots],
        "query": few_shot.as_text([query.media, TextPart(text)]),
        **answer,
        "references": list(query.references),
    }


def score(
    task: Task, queries: Sequence[Example], seeds: Sequence[int], file: PredictionFile
) -> Score:
    """The score of the predictions in `file`, each of which gets its own."""
    metric = metrics.METRICS[task.metric]
    draws = []
    for seed in seeds:
        predictions = [_prediction(task, q, file.lines[seed, q.id]) for q in queries]
        draws.append(metric.each(queries, predictions))
    interval, of_seeds, kind = metrics.summarize(metric, queries, draws)
    if metric.each_is is not None:
        unit = metrics.UNIT if metric.each_is == "score" else 1.0
        scores = {
            (seed, query.id): round(unit * float(value), 4)
            for seed, draw in zip(seeds, draws, strict=True)
            for query, value in zip(queries, draw, strict=True)
        }
        file.finish(scores, metric.each_is)
    groups = {}
    if metric.each_is == "score":
        groups = metrics.by_group(np.mean(draws, axis=0), queries)
    return Score(interval, kind, tuple(of_seeds), groups)


def _prediction(task: Task, query: Example, line: Line) -> metrics.Prediction:
    log_probs = line.get("logprobs")
    return metrics.Prediction(
        text=task.rewrite(line["text"]),
        candidates=task.candidates_of(query),
        log_probs=None if log_probs is None else np.array(log_probs),
    )
