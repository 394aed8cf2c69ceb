"""What the paper prints for its three models, to be drawn beside one's own scores.

Paper: Table 1 and, of 8 and 16 shots, v1's Table 3; ImageNet and Kinetics700 from Table 7. Of
VisDial at 32 shots v1 prints "out of context" and v2 the four-shot numbers again, so none is here.
Splits are the paper's: VQAv2 and VizWiz on test-dev, whose answers are not public. The 80B that was
fine-tuned on each of nine tasks (section 3.2) is a model of its own, asked without examples.
"""

from typing import NamedTuple

MODELS = ("Flamingo-3B", "Flamingo-9B", "Flamingo-80B")
FINE_TUNED = "Flamingo-80B, fine-tuned"
SHOTS = (0, 4, 8, 16, 32)


class Point(NamedTuple):
    """One printed score, as the paper prints it."""

    model: str
    shots: int
    score: float


_NO = None  # not printed, or out of context
_TABLE: dict[str, tuple[tuple[float | None, ...], ...]] = {  # task: 3B, 9B and 80B at each of SHOTS
    "okvqa": (
        (41.2, 43.3, 44.6, 45.6, 45.9),
        (44.7, 49.3, 50.0, 50.8, 51.0),
        (50.6, 57.4, 57.5, 57.8, 57.8),
    ),
    "vqav2": (
        (49.2, 53.2, 55.4, 56.7, 57.1),
        (51.8, 56.3, 58.0, 59.4, 60.4),
        (56.3, 63.1, 65.6, 66.8, 67.6),
    ),
    "coco": (
        (73.0, 85.0, 90.6, 95.4, 99.0),
        (79.4, 93.1, 99.0, 102.2, 106.3),
        (84.3, 103.2, 108.8, 110.5, 113.8),
    ),
    "msvdqa": (
        (27.5, 33.0, 37.0, 40.2, 42.6),
        (30.2, 36.2, 40.8, 44.5, 47.2),
        (35.6, 41.7, 45.5, 48.4, 52.3),
    ),
    "vatex": (
        (40.1, 50.0, 54.5, 57.1, 59.2),
        (39.5, 51.7, 55.2, 58.5, 57.4),
        (46.7, 56.0, 60.6, 62.8, 65.1),
    ),
    "vizwiz": (
        (28.9, 34.0, 38.4, 43.3, 45.5),
        (28.8, 34.9, 39.4, 43.0, 44.0),
        (31.6, 39.6, 44.8, 48.4, 49.8),
    ),
    "flickr30k": (
        (60.6, 72.0, 71.7, 73.4, 71.2),
        (61.5, 72.6, 73.4, 72.7, 72.8),
        (67.2, 75.1, 78.2, 78.9, 75.4),
    ),
    "msrvttqa": (
        (11.0, 14.9, 19.6, 23.4, 25.6),
        (13.7, 18.2, 23.9, 27.6, 29.4),
        (17.4, 23.9, 27.6, 30.0, 31.0),
    ),
    "ivqa": (
        (32.7, 35.7, 36.8, 37.4, 37.7),
        (35.2, 37.7, 40.0, 41.5, 40.7),
        (40.7, 44.1, 44.8, 45.2, 45.3),
    ),
    "youcook2": (
        (55.8, 64.6, 68.0, 73.2, 76.7),
        (55.0, 70.8, 75.0, 77.2, 77.3),
        (60.1, 74.5, 80.7, 84.2, 86.8),
    ),
    "star": (
        (39.6, 41.3, 40.6, 40.1, 41.6),
        (41.8, 42.8, 43.4, 42.4, 41.2),
        (39.7, 42.4, 42.3, 41.1, 42.2),
    ),
    "visdial": (
        (46.1, 47.3, 47.6, 47.5, _NO),
        (48.0, 50.4, 51.2, 51.3, _NO),
        (52.0, 55.6, 56.4, 56.8, _NO),
    ),
    "textvqa": (
        (30.1, 32.7, 32.4, 31.8, 30.6),
        (31.8, 33.6, 33.6, 33.5, 32.6),
        (35.0, 36.5, 37.3, 37.6, 37.9),
    ),
    "nextqa": (
        (21.3, 22.4, 23.9, 25.2, 26.1),
        (23.0, 24.7, 25.8, 27.6, 28.4),
        (26.7, 30.8, 32.3, 32.9, 33.5),
    ),
    "hatefulmemes": (
        (53.7, 53.6, 54.7, 55.3, 56.3),
        (57.0, 62.7, 63.9, 64.5, 63.5),
        (46.4, 68.6, 70.0, 70.0, 70.0),
    ),
    "rareact": (
        (58.4, _NO, _NO, _NO, _NO),
        (57.9, _NO, _NO, _NO, _NO),
        (60.8, _NO, _NO, _NO, _NO),
    ),
}
TASKS = tuple(_TABLE)
# Table 7: similar pictures of 5 examples a class at 16 shots, in one order.
_CLASSIFICATION = {"imagenet": (72.7, 75.2, 76.0), "kinetics700": (58.3, 60.9, 63.5)}
_CLASSIFICATION_SHOTS = 16
_FINE_TUNED = {  # on val or test-dev
    "vqav2": 82.0,
    "coco": 138.1,
    "vatex": 84.2,
    "vizwiz": 65.7,
    "msrvttqa": 47.4,
    "visdial": 61.8,
    "youcook2": 118.6,
    "textvqa": 57.1,
    "hatefulmemes": 86.6,
}


def published(task: str, *, fine_tuned: bool = False) -> list[Point]:
    """The paper's scores of a task, by model and shots; none where it printed none.

    Without shots those of the zero-shot prompt, or with `fine_tuned` that of the model that was
    trained on the task.
    """
    if task in _CLASSIFICATION:
        scores = zip(MODELS, _CLASSIFICATION[task], strict=True)
        return [Point(model, _CLASSIFICATION_SHOTS, score) for model, score in scores]
    points = [
        Point(model, shots, score)
        for model, row in zip(MODELS, _TABLE.get(task, ()), strict=False)
        for shots, score in zip(SHOTS, row, strict=True)
        if score is not None and (shots or not fine_tuned)
    ]
    if fine_tuned and task in _FINE_TUNED:
        points.append(Point(FINE_TUNED, 0, _FINE_TUNED[task]))
    return points
