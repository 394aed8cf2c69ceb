"""VQAv2 and OK-VQA: questions about pictures of COCO 2014.

    vqav2/v2_OpenEnded_mscoco_{train2014,val2014}_questions.json
    vqav2/v2_mscoco_{train2014,val2014}_annotations.json
    okvqa/OpenEnded_mscoco_{train2014,val2014}_questions.json
    okvqa/mscoco_{train2014,val2014}_annotations.json
    coco/train2014/*.jpg  coco/val2014/*.jpg

Paper: section 3; VQA accuracy, of VQAv2 on test-dev, whose answers a server keeps, so here on
val, and of OK-VQA on val. OK-VQA's answers are stems, and predictions are stemmed (`okvqa_stems`).
"""

import dataclasses
import pathlib

from flamingo_jax.eval import okvqa_stems
from flamingo_jax.eval.task import QUESTION, Example, Task, TaskError, shown_answer
from flamingo_jax.eval.tasks import files
from flamingo_jax.eval.tasks.karpathy import COCO_IMAGES
from flamingo_jax.prompts import ImagePart

_VQA, _OKVQA = "https://visualqa.org/download.html", "https://okvqa.allenai.org/download.html"


def vqav2(data_dir: pathlib.Path, caption_template: str) -> Task:
    """VQAv2."""
    names = "v2_OpenEnded_mscoco_{}_questions.json", "v2_mscoco_{}_annotations.json"
    read = {s: _read(data_dir, "vqav2", names, s, _VQA)[0] for s in ("train2014", "val2014")}
    split = "val2014 (the paper: test-dev)"
    return _task("vqav2", split, read["train2014"], read["val2014"])


def okvqa(data_dir: pathlib.Path, caption_template: str) -> Task:
    """OK-VQA."""
    names = "OpenEnded_mscoco_{}_questions.json", "mscoco_{}_annotations.json"
    train, train_pairs = _read(data_dir, "okvqa", names, "train2014", _OKVQA)
    val, val_pairs = _read(data_dir, "okvqa", names, "val2014", _OKVQA)
    stem = okvqa_stems.learn([*train_pairs, *val_pairs])
    task = _task("okvqa", "val2014", train, val)
    return dataclasses.replace(task, metric="vqa_accuracy_of_stems", rewrite=stem)


def picture(data_dir: pathlib.Path, split: str, image_id: int) -> ImagePart:
    """A picture of COCO 2014."""
    return ImagePart(data_dir / "coco" / split / f"COCO_{split}_{image_id:012d}.jpg")


def _task(name: str, split: str, support: list[Example], queries: list[Example]) -> Task:
    return Task(
        name=name,
        split=split,
        template=QUESTION,
        metric="vqa_accuracy",
        queries=queries,
        support=support,
    )


def _read(
    data_dir: pathlib.Path, name: str, names: tuple[str, str], split: str, source: str
) -> tuple[list[Example], list[tuple[str, str]]]:
    """Examples of a split, and (typed, stemmed) answers where there are both."""
    questions_path, path = (data_dir / name / template.format(split) for template in names)
    listed = files.field(files.read_json(questions_path, source), "questions", str(questions_path))
    questions = {q["question_id"]: q["question"] for q in listed}
    examples, pairs = [], []
    annotations = files.field(files.read_json(path, source), "annotations", str(path))
    files.folder(data_dir / "coco" / split, COCO_IMAGES)
    for annotation in annotations:
        number = files.field(annotation, "question_id", str(path))
        if number not in questions:
            raise TaskError(f"{path}: question {number} is not in {questions_path.name}")
        given = files.field(annotation, "answers", f"{path}: question {number}")
        answers = tuple(a["answer"] for a in given)
        pairs += [(a["raw_answer"], a["answer"]) for a in given if "raw_answer" in a]
        example = Example(
            str(number),
            picture(data_dir, split, annotation["image_id"]),
            shown_answer(answers),
            answers,
            {"question": questions[number]},
        )
        examples.append(example)
    return examples, pairs
