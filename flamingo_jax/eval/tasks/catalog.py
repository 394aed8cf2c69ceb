"""Benchmarks by the names that `--tasks` takes."""

import difflib
import pathlib
from collections.abc import Callable

from flamingo_jax.eval.metrics import METRICS
from flamingo_jax.eval.prompt_template import PromptTemplate
from flamingo_jax.eval.task import Task, TaskError
from flamingo_jax.eval.tasks import (
    coco_questions,
    hateful_memes,
    imagenet,
    jsonl,
    karpathy,
    kinetics,
    nextqa,
    picture_questions,
    rareact,
    star,
    video_captions,
    video_questions,
    visdial,
)

JSONL = "jsonl:"
Reader = Callable[[pathlib.Path, str], Task]  # of the folder of all data, and a caption's template

READERS: dict[str, Reader] = {
    "coco": karpathy.coco,
    "flickr30k": karpathy.flickr30k,
    "vqav2": coco_questions.vqav2,
    "okvqa": coco_questions.okvqa,
    "textvqa": picture_questions.textvqa,
    "vizwiz": picture_questions.vizwiz,
    "visdial": visdial.visdial,
    "hatefulmemes": hateful_memes.hateful_memes,
    "imagenet": imagenet.imagenet,
    "msvdqa": video_questions.msvdqa,
    "msrvttqa": video_questions.msrvttqa,
    "ivqa": video_questions.ivqa,
    "nextqa": nextqa.nextqa,
    "star": star.star,
    "vatex": video_captions.vatex,
    "youcook2": video_captions.youcook2,
    "rareact": rareact.rareact,
    "kinetics700": kinetics.kinetics700,
}


def check(name: str) -> None:
    """TaskError unless `name` is one of a benchmark, or `jsonl:PATH`."""
    if name.startswith(JSONL) or name in READERS:
        return
    close = difflib.get_close_matches(name, READERS, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise TaskError(
        f"no task {name!r}: {hint}offered are {', '.join(READERS)}, and {JSONL}PATH for your own"
    )


def read(name: str, data_dir: pathlib.Path | None, caption_template: str) -> Task:
    """The benchmark; TaskError where a file is missing, of another benchmark, or asks nothing.

    `caption_template` is the model's own; ValueError where it is none.
    """
    check(name)
    PromptTemplate.of_caption(caption_template)
    if name.startswith(JSONL):
        try:
            path = pathlib.Path(name.removeprefix(JSONL)).expanduser()
        except RuntimeError:  # of "~name"
            raise TaskError(f"task {name!r}: no such home; write out the path") from None
        return jsonl.read(path, caption_template)
    if data_dir is None:
        raise TaskError(f"task {name!r} reads files in --data_dir, which is not given")
    try:
        task = READERS[name](data_dir, caption_template)
    except TaskError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # inside a record
        raise TaskError(
            f"{data_dir / name}: a file is not laid out as the official one: "
            f"{type(error).__name__}: {error}"
        ) from error
    _check_queries(task, data_dir / name)
    return task


def _check_queries(task: Task, where: pathlib.Path) -> None:
    """Before a model is loaded; of a user's file its own reader says the line."""
    if not task.queries:
        raise TaskError(f"{where}: no queries (split {task.split}): a file is empty, or another's")
    for query in task.queries:
        candidates = task.candidates_of(query)
        if METRICS[task.metric].closed and query.answer not in candidates:
            raise TaskError(
                f"{where}: the answer {query.answer!r} of {query.id} is not among its "
                f"{len(candidates)} candidates: a file is damaged"
            )
