"""Kinetics700-2020: the action in a video, among 700 names.

    kinetics700/{train,validate}.csv    label,youtube_id,time_start,time_end,split
    kinetics700/{train,val}/ID_000010_000020.mp4

Paper: appendix on classification; the mean of top-1 and top-5 on validation, by the likelihood of
`Output: {name}`. The support set has 5 videos of each action, of those that are there: many are no
longer public. What is trained on is all of train.csv.
"""

import pathlib
from collections import Counter

from flamingo_jax.eval.prompt_template import PromptTemplate
from flamingo_jax.eval.task import NUM_OF_CLASS, Example, Task
from flamingo_jax.eval.tasks import files
from flamingo_jax.eval.tasks.imagenet import PER_CLASS
from flamingo_jax.eval.tasks.video_questions import clip_name
from flamingo_jax.prompts import VideoPart

_SOURCE = "https://github.com/cvdfoundation/kinetics-dataset"


def kinetics700(data_dir: pathlib.Path, caption_template: str) -> Task:
    """Kinetics700-2020."""
    folder = data_dir / "kinetics700"
    queries = _read(folder, "validate", "val")
    support, taken = [], Counter()
    for example in _read(folder, "train", "train"):
        if taken[example.answer] < NUM_OF_CLASS and example.path.is_file():
            taken[example.answer] += 1
            support.append(example)
    return Task(
        name="kinetics700",
        split="validation",
        template=PromptTemplate.of_caption(caption_template),
        metric="top1_top5",
        queries=queries,
        support=support,
        candidates=tuple(sorted({query.answer for query in queries})),
        num_support=None,
        per_answer=PER_CLASS,
        training=lambda: _read(folder, "train", "train"),
    )


def _read(folder: pathlib.Path, split: str, videos: str) -> list[Example]:
    found = []
    for number, (where, row) in enumerate(files.read_csv(folder / f"{split}.csv", _SOURCE)):
        keys = ("label", "youtube_id", "time_start", "time_end")
        label, video, start, end = (files.field(row, key, where) for key in keys)
        media = VideoPart(folder / videos / clip_name(video, start, end))
        found.append(Example(f"{split}{number}", media, label, (label,)))
    files.folder(folder / videos, _SOURCE)
    return found
