"""VATEX and YouCook2: captions of videos.

    vatex/vatex_training_v1.0.json    vatex/vatex_public_test_english_v1.1.json
    vatex/videos/ID_000010_000020.mp4
    youcook2/youcookii_annotations_trainval.json    youcook2/videos/ID_000010_000020.mp4

Paper: section 3; CIDEr, of VATEX on test, of YouCook2 on val, with the annotated segments given.
A segment of YouCook2 is a file of its own: video id, start and end in whole seconds.
"""

import pathlib

from flamingo_jax.eval.prompt_template import PromptTemplate
from flamingo_jax.eval.task import Example, Task, each_caption
from flamingo_jax.eval.tasks import files
from flamingo_jax.eval.tasks.karpathy import MAX_TOKENS
from flamingo_jax.eval.tasks.video_questions import clip_name
from flamingo_jax.prompts import VideoPart

_VATEX = "https://eric-xw.github.io/vatex-website/download.html"
_YOUCOOK2 = "https://youcook2.eecs.umich.edu/download"


def vatex(data_dir: pathlib.Path, caption_template: str) -> Task:
    """VATEX, English captions."""
    folder = data_dir / "vatex"

    def read(name: str) -> list[Example]:
        path, found = folder / name, []
        for number, record in enumerate(files.read_json(path, _VATEX)):
            where = f"{path}: record {number}"
            video = files.field(record, "videoID", where)
            captions = tuple(files.field(record, "enCap", where))
            media = VideoPart(folder / "videos" / f"{video}.mp4")
            found.append(Example(video, media, captions[0], captions))
        return found

    support = read("vatex_training_v1.0.json")
    queries = read("vatex_public_test_english_v1.1.json")
    files.folder(folder / "videos", _VATEX)
    return _task("vatex", "public test", queries, support, caption_template)


def youcook2(data_dir: pathlib.Path, caption_template: str) -> Task:
    """YouCook2."""
    folder = data_dir / "youcook2"
    path = folder / "youcookii_annotations_trainval.json"
    database = files.field(files.read_json(path, _YOUCOOK2), "database", str(path))
    splits: dict[str, list[Example]] = {"training": [], "validation": []}
    for video, record in database.items():
        where = f"{path}: {video}"
        found = splits.setdefault(files.field(record, "subset", where), [])
        for annotation in files.field(record, "annotations", where):
            sentence = files.field(annotation, "sentence", where)
            start, end = files.field(annotation, "segment", where)
            media = VideoPart(folder / "videos" / clip_name(video, start, end))
            found.append(Example(f"{video}_{annotation['id']}", media, sentence, (sentence,)))
    files.folder(folder / "videos", _YOUCOOK2)
    queries, support = splits["validation"], splits["training"]
    return _task("youcook2", "validation", queries, support, caption_template)


def _task(
    name: str, split: str, queries: list[Example], support: list[Example], caption_template: str
) -> Task:
    return Task(
        name=name,
        split=split,
        template=PromptTemplate.of_caption(caption_template),
        metric="cider",
        queries=queries,
        support=support,
        max_tokens=MAX_TOKENS,
        training=lambda: each_caption(support),
    )
