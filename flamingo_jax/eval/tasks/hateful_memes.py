"""Hateful Memes: is a picture with a text hateful?

    hatefulmemes/{train,test_seen,dev_seen}.jsonl    hatefulmemes/img/*.png

Paper: section 3; ROC AUC on test-seen, by the likelihoods of yes and no; the text on the picture is
in the prompt. Test-seen was first released without labels: then it is dev-seen that is scored.
"""

import pathlib

from flamingo_jax.eval.prompt_template import PromptTemplate
from flamingo_jax.eval.task import Example, Task, TaskError
from flamingo_jax.eval.tasks import files
from flamingo_jax.prompts import ImagePart

TEMPLATE = PromptTemplate(
    'is an image with written: "{meme_text}" on it. Is it hateful? Answer: {answer}'
)
ANSWERS = ("yes", "no")  # the positive one first
_SOURCE = "https://hatefulmemeschallenge.com"
_NO_LABELS = (None, -1)  # in copies of the test's file


def hateful_memes(data_dir: pathlib.Path, caption_template: str) -> Task:
    """Hateful Memes."""
    folder = data_dir / "hatefulmemes"
    files.folder(folder / "img", _SOURCE)
    support = _read(folder, "train")
    split = "test_seen"
    queries = _read(folder, split) if (folder / f"{split}.jsonl").is_file() else []
    if not queries:
        split = "dev_seen"
        queries = _read(folder, split)
    if not queries or not support:
        raise TaskError(f"{folder}: no labels in train, or in test_seen and dev_seen: {_SOURCE}")
    return Task(
        name="hatefulmemes",
        split=split if split == "test_seen" else f"{split} (the paper: test_seen)",
        template=TEMPLATE,
        metric="roc_auc",
        queries=queries,
        support=support,
        candidates=ANSWERS,
    )


def _read(folder: pathlib.Path, split: str) -> list[Example]:
    """The examples that have a label."""
    found = []
    for where, record in files.read_lines(folder / f"{split}.jsonl", _SOURCE):
        image = folder / files.field(record, "img", where)
        fields = {"meme_text": files.field(record, "text", where)}
        label = record.get("label")
        if label not in (0, 1, *_NO_LABELS):
            raise TaskError(f"{where}: label is {label!r}, want 0 or 1: {_SOURCE}")
        if label not in _NO_LABELS:
            hateful = bool(label)
            answer = ANSWERS[0 if hateful else 1]
            name = str(files.field(record, "id", where))
            found.append(
                Example(
                    name,
                    ImagePart(image),
                    answer,
                    (answer,),
                    fields,
                    relevance=(float(hateful),),
                )
            )
    return found
