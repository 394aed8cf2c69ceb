"""TextVQA and VizWiz: questions about pictures of their own.

    textvqa/TextVQA_0.5.1_{train,val}.json    textvqa/train_images/*.jpg
    vizwiz/Annotations/{train,val}.json       vizwiz/{train,val}/*.jpg

Paper: section 3; VQA accuracy, of TextVQA on val (without its OCR), of VizWiz on test-dev, whose
answers a server keeps, so here on val. VizWiz has no question ids, so pictures' names are.
"""

import pathlib

from flamingo_jax.eval.task import QUESTION, Example, Task, shown_answer
from flamingo_jax.eval.tasks import files
from flamingo_jax.prompts import ImagePart

_TEXTVQA, _VIZWIZ = "https://textvqa.org/dataset", "https://vizwiz.org/tasks-and-datasets/vqa"


def textvqa(data_dir: pathlib.Path, caption_template: str) -> Task:
    """TextVQA."""
    folder = data_dir / "textvqa"

    def read(split: str) -> list[Example]:
        path = folder / f"TextVQA_0.5.1_{split}.json"
        data = files.field(files.read_json(path, _TEXTVQA), "data", str(path))
        found = []
        for record in data:
            number = str(files.field(record, "question_id", str(path)))
            where = f"{path}: question {number}"
            answers = tuple(files.field(record, "answers", where))
            image = pictures / f"{files.field(record, 'image_id', where)}.jpg"
            found.append(_example(number, image, record, answers, where))
        return found

    pictures = folder / "train_images"
    train, val = read("train"), read("val")
    files.folder(pictures, _TEXTVQA)
    return _task("textvqa", "val", train, val)


def vizwiz(data_dir: pathlib.Path, caption_template: str) -> Task:
    """VizWiz."""
    folder = data_dir / "vizwiz"

    def read(split: str) -> list[Example]:
        path, found = folder / "Annotations" / f"{split}.json", []
        records = files.read_json(path, _VIZWIZ)
        files.folder(folder / split, _VIZWIZ)
        for number, record in enumerate(records):
            where = f"{path}: record {number}"
            name = files.field(record, "image", where)
            answers = tuple(a["answer"] for a in files.field(record, "answers", where))
            found.append(_example(name, folder / split / name, record, answers, where))
        return found

    return _task("vizwiz", "val (the paper: test-dev)", read("train"), read("val"))


def _example(
    name: str, image: pathlib.Path, record: dict, answers: tuple[str, ...], where: str
) -> Example:
    fields = {"question": files.field(record, "question", where)}
    return Example(name, ImagePart(image), shown_answer(answers), answers, fields)


def _task(name: str, split: str, support: list[Example], queries: list[Example]) -> Task:
    return Task(
        name=name,
        split=split,
        template=QUESTION,
        metric="vqa_accuracy",
        queries=queries,
        support=support,
    )
