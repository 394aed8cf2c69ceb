"""STAR: questions about situations in videos, four choices each.

    star/STAR_{train,val}.json    star/videos/Interaction_T1_17.mp4

Paper: section 3; top-1 on test, whose answers a server keeps, so here on val. As on that server the
score is the mean over the four types of questions. A video is the part of Charades' that the
question is about, cut out, under the question's id.
"""

import pathlib

from flamingo_jax.eval.task import QUESTION, Example, Task
from flamingo_jax.eval.tasks import files
from flamingo_jax.prompts import VideoPart

_SOURCE = "https://bobbywu.com/STAR"


def star(data_dir: pathlib.Path, caption_template: str) -> Task:
    """STAR."""
    folder = data_dir / "star"
    support, queries = (_read(folder, split) for split in ("train", "val"))
    files.folder(folder / "videos", _SOURCE)
    return Task("star", "val (the paper: test)", QUESTION, "top1_of_types", queries, support)


def _read(folder: pathlib.Path, split: str) -> list[Example]:
    path, found = folder / f"STAR_{split}.json", []
    for number, record in enumerate(files.read_json(path, _SOURCE)):
        where = f"{path}: record {number}"
        name, answer = (files.field(record, key, where) for key in ("question_id", "answer"))
        choices = tuple(choice["choice"] for choice in files.field(record, "choices", where))
        found.append(
            Example(
                name,
                VideoPart(folder / "videos" / f"{name}.mp4"),
                answer,
                (answer,),
                {"question": files.field(record, "question", where)},
                choices,
                group=name.partition("_")[0],
            )
        )
    return found
