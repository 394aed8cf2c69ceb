"""mWAP, RareAct's mean weighted average precision of actions such as "blend phone".

Paper: section 3, RareAct, zero-shot. People marked each clip for one action: 1 where it is shown,
0 where nothing of it is, 2 to 4 in between. For an action the clips that show it stand against two
kinds of negatives: hard ones (marked 2 to 4 for it, or showing an action that shares its verb or
its noun) and others (marked 0 for it, or showing an action that shares neither). Within each of the
three groups the clips of one video have a weight of 1 together.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

VERSION = "mean_wap 1 (RareAct's rules)"


class Clip(NamedTuple):
    """A row of rareact.csv."""

    video_id: str
    verb: str
    noun: str
    annotation: int  # 0 to 4


def mean_wap(
    scores: np.ndarray,  # float[clips, actions]
    clips: Sequence[Clip],
    actions: Sequence[tuple[str, str]],  # (verb, noun) of each column
) -> np.ndarray:  # f64[actions shown in a clip], in the order of `actions`
    """Weighted average precision of each action that any clip shows; mWAP is the mean."""
    found = []
    for column, (verb, noun) in enumerate(actions):
        groups: tuple[list[int], list[int], list[int]] = ([], [], [])  # positive, hard, other
        for row, clip in enumerate(clips):
            if (clip.verb, clip.noun) == (verb, noun):
                groups[{0: 2, 1: 0}.get(clip.annotation, 1)].append(row)
            elif clip.annotation == 1:
                same = (clip.verb == verb) + (clip.noun == noun)
                groups[1 if same == 1 else 2].append(row)
        if groups[0]:
            rows = [row for group in groups for row in group]
            weights = np.concatenate([_weights([clips[r].video_id for r in g]) for g in groups])
            positive = np.arange(len(rows)) < len(groups[0])
            found.append(_average_precision(scores[rows, column], positive, weights))
    return np.array(found)


def _weights(video_ids: Sequence[str]) -> np.ndarray:  # f64[rows]
    count = Counter(video_ids)
    return np.array([1 / count[video] for video in video_ids], np.float64)


def _average_precision(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
    """Precision at each recall gained, weighted by the gain; rows of one score count together."""
    order = np.argsort(-scores, kind="stable")
    scores, gained = scores[order], np.cumsum((weights * positive)[order])
    seen = np.cumsum(weights[order])
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    recall = np.diff(gained[ends], prepend=0) / gained[-1]
    return float((recall * gained[ends] / seen[ends]).sum())
