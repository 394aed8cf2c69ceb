"""RareAct: actions that are seldom seen, such as blending a phone.

    rareact/rareact.csv    id,video_id,start,end,class_id,verb,noun,annotation
    rareact/videos/ID_000010_000020.mp4

Paper: section 3; mWAP, without examples. A clip's score for an action is the log-likelihood of
`Caption: a person blends a phone` after it: the verb in the third person, an article before the
noun. A clip is cut out of its video: video id, start and end in whole seconds.
"""

import pathlib

from flamingo_jax.eval.prompt_template import PromptTemplate
from flamingo_jax.eval.task import Example, Task
from flamingo_jax.eval.tasks import files
from flamingo_jax.eval.tasks.video_questions import clip_name
from flamingo_jax.prompts import VideoPart

TEMPLATE = PromptTemplate("Caption: a person {answer}")
_SOURCE = "https://github.com/antoine77340/RareAct"
_KEYS = ("id", "video_id", "start", "end", "class_id", "verb", "noun", "annotation")


def rareact(data_dir: pathlib.Path, caption_template: str) -> Task:
    """RareAct."""
    folder = data_dir / "rareact"
    queries, classes = [], {}
    for where, row in files.read_csv(folder / "rareact.csv", _SOURCE):
        name, video, start, end, number, verb, noun, annotation = (
            files.field(row, key, where) for key in _KEYS
        )
        action = phrase(verb, noun)
        classes[int(number)] = action
        fields = {"video": video, "verb": verb, "noun": noun, "annotation": str(int(annotation))}
        media = VideoPart(folder / "videos" / clip_name(video, start, end))
        queries.append(Example(name, media, action, (action,), fields))
    files.folder(folder / "videos", _SOURCE)
    return Task(
        name="rareact",
        split="all",
        template=TEMPLATE,
        metric="mean_wap",
        queries=queries,
        support=(),
        candidates=tuple(dict.fromkeys(classes[number] for number in sorted(classes))),
        max_shots=0,
    )


def phrase(verb: str, noun: str) -> str:
    """`blend`, `phone` as "blends a phone"."""
    ending = "es" if verb.endswith(("s", "sh", "ch", "x", "z", "o")) else "s"
    if verb.endswith("y") and verb[-2:-1] not in "aeiou":
        verb, ending = verb[:-1], "ies"
    article = "an" if noun[:1] in "aeiou" else "a"
    return f"{verb}{ending} {article} {noun}"
