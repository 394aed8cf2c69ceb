"""A user's own benchmark: one object a line, `--tasks=jsonl:PATH`.

    {"task": {"name": "pets", "metric": "cider", "template": "A picture of {answer}"}}
    {"id": "1", "split": "support", "image": "1.jpg", "captions": ["a cat"]}
    {"id": "2", "split": "query", "image": "2.jpg", "captions": ["a dog", "a brown dog"]}

The first line may be left out, and every key in it. Examples hold `captions`, or `question` and
`answers`, or `label`, all lines the same; the metric follows from that. Paths start at the file's
folder. Every error is a TaskError of one line that names the line.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flamingo_jax.eval.metrics import METRICS
from flamingo_jax.eval.prompt_template import PromptTemplate
from flamingo_jax.eval.task import QUESTION, Example, Task, TaskError, each_caption
from flamingo_jax.eval.tasks import files, jsonl_line

_NUM_VQA_ANSWERS = 10  # people that VQA accuracy holds against each other
_METRICS = {  # that a kind of line can have, its own first
    "captions": ("cider",),
    "question": ("vqa_accuracy", "exact_match", "top1"),
    "label": ("top1", "roc_auc", "exact_match"),
}
_MAX_TOKENS = {"captions": 30, "question": 10, "label": 10}


def read(path: pathlib.Path, caption_template: str) -> Task:
    """The benchmark in a file; captions and labels have the model's own template by default."""
    header: Mapping[str, Any] = {}
    examples: dict[str, Example] = {}
    splits: dict[str, list[Example]] = {"support": [], "query": []}
    kinds: dict[str, str] = {}  # each kind by where it stands first
    for number, (where, line) in enumerate(files.read_lines(path, "")):
        if not isinstance(line, Mapping):
            raise TaskError(f"{where}: want an object, got {type(line).__name__}")
        if "task" in line:
            if number:
                raise TaskError(f"{where}: the task's own line must be the first one")
            header = jsonl_line.header(line, where)
            continue
        kind, split, example = jsonl_line.example(line, path.parent, where)
        if example.id in examples:
            raise TaskError(f"{where}: id {example.id!r} was used before; give each its own")
        kinds.setdefault(kind, where)
        if len(kinds) > 1:
            (first, at), (other, _) = kinds.items()
            raise TaskError(
                f"{where}: {other!r} where {at} has {first!r}; make two files of the two tasks"
            )
        examples[example.id] = example
        splits[split].append(example)
    if not splits["query"]:
        raise TaskError(f'{path}: no line has "split": "query", so there is nothing to ask')
    (kind,) = kinds
    return _task(path, header, kind, splits, caption_template)


def _task(
    path: pathlib.Path,
    header: Mapping[str, Any],
    kind: str,
    splits: Mapping[str, Sequence[Example]],
    caption_template: str,
) -> Task:
    where = f"{path}: task"
    queries, support = splits["query"], splits["support"]
    candidates = tuple(header.get("candidates", ()))
    metric = header.get("metric") or _usual_metric(kind, queries, candidates)
    if metric not in _METRICS[kind]:
        raise TaskError(
            f"{where}: metric {metric!r} does not go with {kind!r} lines; use one of "
            f"{list(_METRICS[kind])}"
        )
    closed = METRICS[metric].closed
    if candidates and not closed:
        raise TaskError(
            f'{where}: "candidates" are not for {metric}, which scores what is written: leave them '
            "out, or name another metric"
        )
    if kind == "label" and closed and not candidates:
        candidates = tuple(sorted({e.answer for e in (*queries, *support)}))
    if closed:
        _check_candidates(queries, candidates, metric, where)
    else:
        candidates, queries = (), [dataclasses.replace(q, candidates=()) for q in queries]
    if metric == "vqa_accuracy" and (few := [q for q in queries if len(q.references) < 2]):
        raise TaskError(
            f"{where}: vqa_accuracy wants two answers or more, query {few[0].id!r} has one; use "
            "exact_match"
        )
    if metric == "roc_auc":
        for query in queries:
            if query.candidates not in ((), candidates):
                raise TaskError(
                    f"{where}: roc_auc wants the same two candidates, the positive one first, of "
                    f"all queries; {query.id!r} has {list(query.candidates)}: list "
                    '"candidates" in the task\'s line alone'
                )
        queries = [
            dataclasses.replace(q, relevance=(float(q.answer == candidates[0]),)) for q in queries
        ]
        if len({q.relevance for q in queries}) < 2:
            raise TaskError(f"{where}: roc_auc wants queries of both labels, all have one")
    usual = QUESTION if kind == "question" else None
    template = _template(header.get("template"), usual, caption_template, kind, where)
    return Task(
        name=header.get("name", path.stem),
        split="query",
        template=template,
        metric=metric,
        queries=queries,
        support=support,
        candidates=candidates,
        max_tokens=header.get("max_tokens", _MAX_TOKENS[kind]),
        num_support=None,
        is_own=True,
        training=(lambda: each_caption(support)) if kind == "captions" else None,
    )


def _usual_metric(kind: str, queries: Sequence[Example], candidates: Sequence[str]) -> str:
    if kind != "question":
        return _METRICS[kind][0]
    if candidates or any(query.candidates for query in queries):
        return "top1"
    many = all(len(query.references) >= _NUM_VQA_ANSWERS for query in queries)
    return "vqa_accuracy" if many else "exact_match"


def _check_candidates(
    queries: Sequence[Example], candidates: tuple[str, ...], metric: str, where: str
) -> None:
    wanted = METRICS[metric].num_candidates
    for query in queries:
        own = query.candidates or candidates
        if len(own) < 2 or (wanted is not None and len(own) != wanted):
            raise TaskError(
                f"{where}: {metric} wants {wanted or 'two or more'} candidates, query "
                f'{query.id!r} has {len(own)}; list "candidates" in the task\'s line'
            )
        if len(set(own)) < len(own):
            raise TaskError(f"{where}: query {query.id!r} has a candidate twice in {_some(own)}")
        if query.answer not in own:
            raise TaskError(
                f"{where}: the answer {query.answer!r} of query {query.id!r} is not among the "
                f"candidates {_some(own)}"
            )


def _some(names: Sequence[str]) -> str:
    return f"{list(names[:5])}{' and more' if len(names) > 5 else ''}"


def _template(
    given: str | None, usual: PromptTemplate | None, caption: str, kind: str, where: str
) -> PromptTemplate:
    if given is None:
        return usual or PromptTemplate.of_caption(caption)
    try:
        template = PromptTemplate(given)
    except ValueError as error:
        raise TaskError(f"{where}: {error}") from None
    known = ("question",) if kind == "question" else ()
    for name in template.fields:
        if name not in known:
            places = " and ".join(f"{{{place}}}" for place in (*known, "answer"))
            raise TaskError(f"{where}: template {given!r} has a place {{{name}}}; use {places}")
    return template
