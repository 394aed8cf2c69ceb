"""Classes by their names alone: the class whose description is nearest to the picture.

Paper: appendix B.1.3, "prompt ensembling": a class is described in several ways, "A photo of a
{class_name}" among them, and stands where the mean of those points does. The paper prints no other
description; those here are ours, and few.
"""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from flamingo_jax.eval.retrieval import normalize

PICTURES = (
    "A photo of a {}.",
    "A photo of the {}.",
    "A close-up photo of a {}.",
    "A blurry photo of a {}.",
    "A black and white photo of a {}.",
    "A photo of a small {}.",
    "A photo of a large {}.",
    "A drawing of a {}.",
)
VIDEOS = (
    "A video of {}.",
    "A video of a person {}.",
    "A photo of {}.",
    "A photo of someone {}.",
    "An example of {}.",
)


def class_points(
    embed_texts: Callable[[Sequence[str]], np.ndarray],  # to f32[texts, J] of length 1
    names: Sequence[str],
    templates: Sequence[str],  # each with {} in the place of the name
) -> np.ndarray:  # f32[classes, J] of length 1
    """The mean direction of every class's descriptions."""
    texts = [template.replace("{}", name) for name in names for template in templates]
    return normalize(embed_texts(texts).reshape(len(names), len(templates), -1).mean(1))


def read_templates(path: pathlib.Path) -> list[str]:
    """Lines of a file that are not blank; ValueError, which names it, where it holds none."""
    try:
        found = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8") from None
    if not found:
        raise ValueError(f"{path} is empty: want a description a line, as 'A photo of a {{}}.'")
    return found


def check_templates(templates: Sequence[str]) -> None:
    """ValueError unless there are some, each with one place for the name."""
    if not templates:
        raise ValueError("no templates: want one a line, such as 'A photo of a {}.'")
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"template {template!r} must hold {{}} once, as 'A photo of a {{}}.'")
