"""ImageNet-1k: the class of a picture, among 1,000 names.

    imagenet/train/n01440764/*.JPEG    imagenet/val/n01440764/*.JPEG
    imagenet/class_names.txt           a line a class: n01440764 tench

Paper: appendix on classification; top-1 on val, by the likelihood of `Output: {name}`; the names
are prompt-friendly ones, one a class. Where there is no class_names.txt, the first name of each
class in LOC_synset_mapping.txt is taken. The support set has 5 examples of each class; what is
trained on is all of train.
"""

import hashlib
import pathlib

from flamingo_jax.eval.prompt_template import PromptTemplate
from flamingo_jax.eval.task import NUM_OF_CLASS, Example, Task, TaskError
from flamingo_jax.eval.tasks import files
from flamingo_jax.prompts import ImagePart

PER_CLASS = 5
_SOURCE = "https://image-net.org/download"
_NAMES = "class_names.txt", "LOC_synset_mapping.txt"


def imagenet(data_dir: pathlib.Path, caption_template: str) -> Task:
    """ImageNet-1k."""
    folder = data_dir / "imagenet"
    names = _class_names(folder)
    train, val = (files.folder(folder / split, _SOURCE) for split in ("train", "val"))
    support, queries = [], []
    for wnid, name in names.items():
        own = sorted(_pictures(train / wnid), key=_draw)[:NUM_OF_CLASS]
        support += [_example(path, name) for path in sorted(own)]
        queries += [_example(path, name) for path in _pictures(val / wnid)]
    return Task(
        name="imagenet",
        split="val",
        template=PromptTemplate.of_caption(caption_template),
        metric="top1",
        queries=queries,
        support=support,
        candidates=tuple(names.values()),
        num_support=None,
        per_answer=PER_CLASS,
        training=lambda: (
            _example(path, name) for wnid, name in names.items() for path in _pictures(train / wnid)
        ),
    )


def _class_names(folder: pathlib.Path) -> dict[str, str]:
    """By WordNet id; each name once, or two classes could not be told apart."""
    path = folder / _NAMES[0]
    if not path.is_file():
        path = folder / _NAMES[1]
    names: dict[str, str] = {}
    for where, line in files.read_text_lines(path, f"{_SOURCE}, or write {folder / _NAMES[0]}"):
        wnid, _, name = line.partition(" ")
        name = name.partition(",")[0].strip()
        if not name:
            raise TaskError(f"{where}: want a class and its name, as in n01440764 tench")
        if name in names.values():
            raise TaskError(
                f"{where}: the name {name!r} was used before; give each class its own in "
                f"{folder / _NAMES[0]}"
            )
        names[wnid] = name
    if len(names) < 2:
        raise TaskError(f"{path}: want two classes or more")
    return names


def _pictures(folder: pathlib.Path) -> list[pathlib.Path]:
    """In order of their names."""
    return sorted(path for path in files.folder(folder, _SOURCE).iterdir() if path.is_file())


def _draw(path: pathlib.Path) -> bytes:
    """An order by chance that is the same everywhere."""
    return hashlib.sha256(path.name.encode()).digest()


def _example(path: pathlib.Path, name: str) -> Example:
    return Example(f"{path.parent.name}/{path.name}", ImagePart(path), name, (name,))
