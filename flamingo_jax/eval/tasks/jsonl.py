"""A user's own benchmark: one object a line, `--tasks=jsonl:PATH`.

    {"task": {"name": "pets", "metric": "cider", "template": "A picture of {answer}"}}
    {"id": "1", "split": "support", "image": "1.jpg", "captions": ["a cat"]}
    {"id": "2", "split": "query", "image": "2.jpg", "captions": ["a dog", "a brown dog"]}

The first line may be left out, and every key in it. Examples hold `captions`, or `question` and
`answers`, or `label`, all lines the same; the metric follows from that. Paths start at the file's
folder. Every error is a TaskError of one line that names the line.
"""

import dataclasses
import difflib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flamingo_jax.eval.metrics import METRICS
from flamingo_jax.eval.prompt_template import PromptTemplate
from flamingo_jax.eval.task import QUESTION, Example, Task, TaskError, shown_answer
from flamingo_jax.eval.tasks import files
from flamingo_jax.prompts import ImagePart, VideoPart

_NUM_VQA_ANSWERS = 10  # people that VQA accuracy holds against each other
_TASK_KEYS = ("name", "metric", "template", "candidates", "max_tokens")
_MEDIA, _KINDS = ("image", "video"), ("captions", "question", "label")
_KEYS = ("id", "split", *_MEDIA, "captions", "question", "answers", "label", "candidates")
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
            header = _header(line, where)
            continue
        kind, split, example = _example(line, path.parent, where)
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


def _header(line: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    header = line["task"]
    if not isinstance(header, Mapping) or len(line) != 1:
        raise TaskError(f'{where}: want {{"task": {{..}}}} alone on the line')
    _check_keys(header, _TASK_KEYS, where)
    for key in ("name", "metric", "template"):
        if key in header:
            _text(header, key, where)
    name = header.get("name", "")
    if "/" in name or not name.isprintable():
        raise TaskError(f"{where}: name {name!r} names files, so it holds no / nor line breaks")
    if "candidates" in header:
        header = {**header, "candidates": _texts(header, "candidates", where)}
    most = header.get("max_tokens", 1)
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise TaskError(f"{where}: max_tokens={most!r}: use a whole number from 1 on")
    return header


def _example(line: Mapping[str, Any], folder: pathlib.Path, where: str) -> tuple[str, str, Example]:
    """The line's kind, its split, and what it says."""
    _check_keys(line, _KEYS, where)
    example_id, split = _text(line, "id", where), _text(line, "split", where)
    if split not in ("support", "query"):
        raise TaskError(f"{where}: split is {split!r}; use 'support' or 'query'")
    kinds = [kind for kind in _KINDS if kind in line]
    if len(kinds) != 1:
        found = f"has {' and '.join(kinds)}" if kinds else "has none of them"
        raise TaskError(
            f'{where}: want "captions", or "question" and "answers", or "label": the line {found}'
        )
    (kind,) = kinds
    if ("answers" in line) != (kind == "question"):
        raise TaskError(f'{where}: "question" and "answers" go together')
    if kind == "label":
        references = (_text(line, "label", where),)
    else:
        references = _texts(line, "captions" if kind == "captions" else "answers", where)
    fields = {"question": _text(line, "question", where)} if kind == "question" else {}
    candidates = _texts(line, "candidates", where) if "candidates" in line else ()
    media = _media(line, folder, where)
    answer = shown_answer(references) if kind == "question" else references[0]
    return kind, split, Example(example_id, media, answer, references, fields, candidates)


def _media(line: Mapping[str, Any], folder: pathlib.Path, where: str) -> ImagePart | VideoPart:
    given = [key for key in _MEDIA if key in line]
    if len(given) != 1:
        raise TaskError(f'{where}: want "image" or "video", one of them')
    path = _text(line, given[0], where)
    if "\0" in path:
        raise TaskError(f"{where}: {given[0]} {path!r} is no path, for it holds a null character")
    if "://" in path:
        raise TaskError(f"{where}: {path} is an address; download it and give the file's path")
    return ImagePart(folder / path) if given[0] == "image" else VideoPart(folder / path)


def _check_keys(record: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in record:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"use {list(known)}"
            raise TaskError(f"{where}: unknown key {key!r}; {hint}")


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip() or not _is_whole(value):
        found = "is missing" if value is None else f"is {value!r}"
        raise TaskError(f"{where}: {key} {found}; give a text that is not empty")
    return value.strip()


def _texts(record: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = record[key]
    good = isinstance(values, list) and values
    if not good or not all(isinstance(v, str) and v.strip() and _is_whole(v) for v in values):
        raise TaskError(f"{where}: {key} must be a list of one text or more, none empty")
    return tuple(value.strip() for value in values)


def _is_whole(text: str) -> bool:
    """Not with half of a pair of JSON's \\u escapes, which no tokenizer can read."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
