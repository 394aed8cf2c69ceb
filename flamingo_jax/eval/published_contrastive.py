"""What the paper prints for its own contrastive NFNet-F6, without examples.

Paper: Table 7 (ImageNet top-1; Kinetics700 the mean of top-1 and top-5) and Table 9 (retrieval).
"""

from flamingo_jax.eval.recall import AT, PICTURE, TEXT

_RECALLS = {
    "flickr30k": {TEXT: (89.3, 98.8, 99.7), PICTURE: (79.5, 95.3, 97.9)},
    "coco": {TEXT: (65.9, 87.3, 92.9), PICTURE: (48.0, 73.3, 82.1)},
}
_CLASSIFICATION = {"imagenet": 77.9, "kinetics700": 62.9}


def published(task: str, metric: str) -> float | None:
    """The printed score of a task by a metric, `text_recall@5` say; None where there is none."""
    way, _, k = metric.partition("@")
    if not k:
        return _CLASSIFICATION.get(task)
    recalls = dict(zip(AT, _RECALLS.get(task, {}).get(way, ()), strict=False))
    return recalls.get(int(k))
