"""COCO and Flickr30k captions on Karpathy's splits.

    coco/dataset_coco.json          coco/train2014/*.jpg  coco/val2014/*.jpg
    flickr30k/dataset_flickr30k.json                      flickr30k/flickr30k-images/*.jpg

Paper: section 3; CIDEr on the test split. Support examples are of the training split, of COCO not
of its "restval". A support example shows its first caption. What is trained on has each caption,
of COCO's "restval" too.
"""

import pathlib

from flamingo_jax.eval.prompt_template import PromptTemplate
from flamingo_jax.eval.task import Example, Task, TaskError, each_caption
from flamingo_jax.eval.tasks import files
from flamingo_jax.prompts import ImagePart

MAX_TOKENS = 30
COCO_IMAGES = "https://cocodataset.org/#download"
_JSON = "caption_datasets.zip of https://cs.stanford.edu/people/karpathy/deepimagesent"
_FLICKR_IMAGES = "https://shannon.cs.illinois.edu/DenotationGraph"


def coco(data_dir: pathlib.Path, caption_template: str) -> Task:
    """MS-COCO."""
    folder = data_dir / "coco"
    pictures = {name: folder / name for name in ("train2014", "val2014")}
    return _read("coco", folder / "dataset_coco.json", pictures, COCO_IMAGES, caption_template)


def flickr30k(data_dir: pathlib.Path, caption_template: str) -> Task:
    """Flickr30k."""
    folder = data_dir / "flickr30k"
    pictures = {"": folder / "flickr30k-images"}
    path = folder / "dataset_flickr30k.json"
    return _read("flickr30k", path, pictures, _FLICKR_IMAGES, caption_template)


def _read(
    name: str,
    path: pathlib.Path,
    pictures: dict[str, pathlib.Path],
    source: str,
    caption_template: str,
) -> Task:
    splits: dict[str, list[Example]] = {"train": [], "restval": [], "test": []}
    for number, image in enumerate(files.field(files.read_json(path, _JSON), "images", str(path))):
        where = f"{path}: image {number}"
        split = files.field(image, "split", where)
        if split not in splits:
            continue
        folder = pictures.get(image.get("filepath", ""))
        if folder is None:
            raise TaskError(f"{where}: filepath is {image.get('filepath')!r}: not of {name}")
        captions = tuple(s["raw"].strip() for s in files.field(image, "sentences", where))
        media = ImagePart(folder / files.field(image, "filename", where))
        splits[split].append(Example(str(image["imgid"]), media, captions[0], captions))
    for folder in pictures.values():
        files.folder(folder, source)
    return Task(
        name=name,
        split="test (Karpathy)",
        template=PromptTemplate.of_caption(caption_template),
        metric="cider",
        queries=splits["test"],
        support=splits["train"],
        max_tokens=MAX_TOKENS,
        training=lambda: each_caption([*splits["train"], *splits["restval"]]),
    )
