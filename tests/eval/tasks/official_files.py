"""Tiny benchmarks in the layouts of their official files, with real JPEGs."""

import io
import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image


def write_json(path: pathlib.Path, value: Any) -> None:
    """A file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path: pathlib.Path, *values: Any) -> None:
    """One JSON object a line, or one text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    path.write_text("\n".join(texts) + "\n")


def write_picture(path: pathlib.Path, seed: int = 0) -> None:
    """A JPEG, or what the name's end says, of 8 x 6 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG" if path.suffix == ".png" else "JPEG")
    path.write_bytes(file.getvalue())


def coco_picture(folder: pathlib.Path, split: str, number: int) -> pathlib.Path:
    """A picture of COCO 2014."""
    path = folder / "coco" / split / f"COCO_{split}_{number:012d}.jpg"
    write_picture(path, number)
    return path


def karpathy(folder: pathlib.Path, name: str) -> None:
    """coco or flickr30k: one picture each of train, restval, val and test."""
    images = []
    for number, split in enumerate(("train", "restval", "val", "test")):
        captions = [f" Picture {number}.", f"The {split} picture"]
        image = {
            "imgid": number,
            "split": split,
            "filename": f"{number}.jpg",
            "sentences": [{"raw": text, "tokens": [], "sentid": 0} for text in captions],
        }
        if name == "coco":
            where = "train2014" if split == "train" else "val2014"
            image |= {"filepath": where, "cocoid": number}
            image["filename"] = coco_picture(folder, where, number).name
        else:
            write_picture(folder / name / "flickr30k-images" / f"{number}.jpg")
        images.append(image)
    write_json(folder / name / f"dataset_{name}.json", {"images": images, "dataset": name})


def coco_questions(folder: pathlib.Path, name: str, **answer: str) -> None:
    """vqav2 or okvqa: a question a split, ten answers of which two differ."""
    prefix = "v2_" if name == "vqav2" else ""
    for number, split in enumerate(("train2014", "val2014"), 1):
        coco_picture(folder, split, number)
        question = {"image_id": number, "question": "What is it?", "question_id": number}
        answers = [{"answer": "cat", "answer_id": i} | answer for i in range(8)]
        answers += [{"answer": "dog", "answer_id": i} | answer for i in (8, 9)]
        annotation = {"image_id": number, "question_id": number, "answers": answers}
        write_json(
            folder / name / f"{prefix}OpenEnded_mscoco_{split}_questions.json",
            {"questions": [question]},
        )
        write_json(
            folder / name / f"{prefix}mscoco_{split}_annotations.json",
            {"annotations": [annotation]},
        )


def textvqa(folder: pathlib.Path) -> None:
    """A question a split."""
    for number, split in enumerate(("train", "val")):
        record = {
            "question": "what does it say?",
            "image_id": f"id{number}",
            "question_id": number,
            "answers": ["stop"] * 10,
        }
        write_json(folder / "textvqa" / f"TextVQA_0.5.1_{split}.json", {"data": [record]})
        write_picture(folder / "textvqa" / "train_images" / f"id{number}.jpg")


def vizwiz(folder: pathlib.Path) -> None:
    """A question a split; answers have no ids."""
    for split in ("train", "val"):
        name = f"VizWiz_{split}_00000000.jpg"
        answers = [{"answer": "unanswerable", "answer_confidence": "yes"}] * 10
        record = {"image": name, "question": "What is this?", "answers": answers}
        write_json(folder / "vizwiz" / "Annotations" / f"{split}.json", [record])
        write_picture(folder / "vizwiz" / split / name)


def hateful_memes(folder: pathlib.Path, *, test_labels: bool = True) -> None:
    """Two memes a split."""
    for split in ("train", "dev_seen", "test_seen"):
        records = []
        for label in (0, 1):
            image = f"img/{split}{label}.png"
            write_picture(folder / "hatefulmemes" / image)
            record = {"id": 10 + label, "img": image, "text": f'the "{split}" meme'}
            labelled = {"label": label} if test_labels or split != "test_seen" else {}
            records.append(record | labelled)
        write_lines(folder / "hatefulmemes" / f"{split}.jsonl", *records)


def visdial(folder: pathlib.Path) -> None:
    """A dialogue of two rounds a split, three options each; the second round of val is rated."""
    for split, number in (("train", 7), ("val", 9)):
        rounds = [
            {"question": i, "answer": i, "answer_options": [2, 0, 1], "gt_index": 1 + i}
            for i in range(2)
        ]
        data = {
            "questions": ["is it grey", "is it asleep"],
            "answers": ["yes", "no", "i think so"],
            "dialogs": [{"image_id": number, "caption": "a cat on a mat", "dialog": rounds}],
        }
        write_json(folder / "visdial" / f"visdial_1.0_{split}.json", {"data": data})
    coco_picture(folder, "train2014", 1)
    coco_picture(folder, "val2014", 7)
    name = "VisualDialog_val2018"
    write_picture(folder / "visdial" / name / f"{name}_{9:012d}.jpg")
    rated = {"image_id": 9, "round_id": 2, "gt_relevance": [0.0, 0.2, 1.0]}
    write_json(folder / "visdial" / "visdial_1.0_val_dense_annotations.json", [rated])


def imagenet(folder: pathlib.Path) -> None:
    """Two classes, seven pictures of each for training, one to ask about."""
    classes = {"n01440764": "tench, Tinca tinca", "n01443537": "goldfish"}
    for wnid in classes:
        for number in range(7):
            write_picture(folder / "imagenet" / "train" / wnid / f"{wnid}_{number}.JPEG", number)
        write_picture(folder / "imagenet" / "val" / wnid / f"{wnid}_val.JPEG")
    lines = [f"{wnid} {name}" for wnid, name in classes.items()]
    write_lines(folder / "imagenet" / "LOC_synset_mapping.txt", *lines)
