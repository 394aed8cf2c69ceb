"""What a training run hands to its report: held-out and few-shot scores, data counts, samples."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from flamingo_jax.eval.bootstrap import Interval

CIDER_UNIT = "100 times the COCO scorer's value, as papers print it"


@dataclasses.dataclass(frozen=True)
class Heldout:
    """Loss and ranking on pictures whose names were not trained on; losses in nats a token.

    `nll_shuffled` scores every caption with another held-out picture; `nll_difference` is how much
    more that costs than the right one, over the same queries. `rank1` is the share of
    queries, in [0, 1], whose right name had the highest likelihood of `num_candidates`;
    `rank1_per_token` the share by likelihood a token, which does not prefer short names.
    """

    nll_right: float
    nll_shuffled: float
    nll_difference: Interval
    rank1: Interval
    rank1_per_token: Interval
    mean_reciprocal_rank: float
    num_candidates: int

    def to_json(self) -> dict[str, Any]:
        return {
            "nll_right": self.nll_right,
            "nll_shuffled": self.nll_shuffled,
            **_interval_json("nll_difference", self.nll_difference),
            **_interval_json(f"rank1_of_{self.num_candidates}", self.rank1),
            **_interval_json(f"rank1_of_{self.num_candidates}_per_token", self.rank1_per_token),
            "mean_reciprocal_rank": self.mean_reciprocal_rank,
            "num_queries": self.rank1.num_queries,
        }


@dataclasses.dataclass(frozen=True)
class FewShotScore:
    """What `shots` examples in the prompt make of captions and of ranking.

    `cider` is CIDEr-D as `eval.cider` gives it (not yet times 100); `rank1` the share of queries
    whose right name came first of `Heldout.num_candidates`, None where that was not asked.
    """

    shots: int
    retrieval: Literal["random", "rices"]
    cider: Interval
    rank1: Interval | None = None

    def to_json(self, num_candidates: int) -> dict[str, Any]:
        values = {
            "cider": 100 * self.cider.mean,
            "low": 100 * self.cider.low,
            "high": 100 * self.cider.high,
            "num_queries": self.cider.num_queries,
            "retrieval": self.retrieval,
        }
        if self.rank1 is not None:
            values |= _interval_json(f"rank1_of_{num_candidates}", self.rank1)
            values["rank1_num_queries"] = self.rank1.num_queries
        return values


@dataclasses.dataclass(frozen=True)
class DataCount:
    """How much of a dataset was read, and what was skipped, by reason."""

    examples: int
    skipped: int = 0
    reasons: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SamplePicture:
    """A picture, the text the model wrote for it, and its true names, the main one first."""

    picture: np.ndarray  # u8[H, W, 3]
    written: str
    truth: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether the text is one of the true names, but for case, spaces and a final point."""
        return _same(self.written) in {_same(name) for name in self.truth}


@dataclasses.dataclass(frozen=True)
class Report:
    """What `write_report` needs besides the workdir's metrics; parts that were not run are empty.

    `heldout_skipped` counts held-out and support records that could not be used, by reason; `notes`
    are sentences for the reader, such as what was left out of a score.
    """

    variant: str
    wall_s: float
    peak_rss_gib: float
    data: Mapping[str, DataCount] = dataclasses.field(default_factory=dict)
    heldout: Heldout | None = None
    few_shot: Sequence[FewShotScore] = ()
    samples: Sequence[SamplePicture] = ()
    heldout_skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """The contents of report.json; keys of parts that were not run are left out."""
        values: dict[str, Any] = {
            "variant": self.variant,
            "wall_s": self.wall_s,
            "peak_rss_gib": self.peak_rss_gib,
            "data": {name: dataclasses.asdict(count) for name, count in self.data.items()},
        }
        if self.heldout is not None:
            values["heldout"] = self.heldout.to_json()
        if self.few_shot:
            num_candidates = 0 if self.heldout is None else self.heldout.num_candidates
            values["few_shot"] = _few_shot_json(self.few_shot, num_candidates)
            values["cider_unit"] = CIDER_UNIT
        if self.samples:
            values["samples"] = [
                {"written": s.written, "true": list(s.truth), "right": s.right}
                for s in self.samples
            ]
        if self.heldout_skipped:
            values["heldout_skipped"] = dict(self.heldout_skipped)
        return values | {"notes": list(self.notes)}


def _interval_json(name: str, found: Interval) -> dict[str, float]:
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _few_shot_json(scores: Sequence[FewShotScore], num_candidates: int) -> dict[str, Any]:
    """By number of shots; RICES leads where it was run, with the random draw under "random"."""
    entries: dict[str, Any] = {}
    for shots in sorted({score.shots for score in scores}):
        own = [score for score in scores if score.shots == shots]
        at = {score.retrieval: score.to_json(num_candidates) for score in own}
        entry = at.pop("rices", None) or at.pop("random")
        entries[str(shots)] = entry | at
    return entries


def _same(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")
