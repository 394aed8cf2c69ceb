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

    `nll_shuffled` scores every caption with another held-out picture. `rank1` is the share of
    queries, in [0, 1], whose right name had the highest likelihood of `num_candidates`;
    `rank1_per_token` the share by likelihood a token, which does not prefer short names.
    """

    nll_right: float
    nll_shuffled: float
    rank1: Interval
    rank1_per_token: Interval
    mean_reciprocal_rank: float
    num_candidates: int

    def to_json(self) -> dict[str, Any]:
        rank1 = f"rank1_of_{self.num_candidates}"
        return {
            "nll_right": self.nll_right,
            "nll_shuffled": self.nll_shuffled,
            rank1: self.rank1.mean,
            f"{rank1}_low": self.rank1.low,
            f"{rank1}_high": self.rank1.high,
            f"{rank1}_per_token": self.rank1_per_token.mean,
            "mean_reciprocal_rank": self.mean_reciprocal_rank,
            "num_queries": self.rank1.num_queries,
        }


@dataclasses.dataclass(frozen=True)
class FewShotScore:
    """CIDEr-D with `shots` examples, as `eval.cider` gives it (not yet times 100)."""

    shots: int
    retrieval: Literal["random", "rices"]
    cider: Interval

    def to_json(self) -> dict[str, Any]:
        return {
            "cider": 100 * self.cider.mean,
            "low": 100 * self.cider.low,
            "high": 100 * self.cider.high,
            "num_queries": self.cider.num_queries,
            "retrieval": self.retrieval,
        }


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

    `notes` are sentences for the reader, such as what was left out of a score.
    """

    variant: str
    wall_s: float
    peak_rss_gib: float
    data: Mapping[str, DataCount] = dataclasses.field(default_factory=dict)
    heldout: Heldout | None = None
    few_shot: Sequence[FewShotScore] = ()
    samples: Sequence[SamplePicture] = ()
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
            values["few_shot"] = _few_shot_json(self.few_shot)
            values["cider_unit"] = CIDER_UNIT
        if self.samples:
            values["samples"] = [
                {"written": s.written, "true": list(s.truth), "right": s.right}
                for s in self.samples
            ]
        return values | {"notes": list(self.notes)}


def _few_shot_json(scores: Sequence[FewShotScore]) -> dict[str, Any]:
    """By number of shots; RICES leads where it was run, with the random draw under "random"."""
    entries: dict[str, Any] = {}
    for shots in sorted({score.shots for score in scores}):
        at = {score.retrieval: score.to_json() for score in scores if score.shots == shots}
        entry = at.pop("rices", None) or at.pop("random")
        entries[str(shots)] = entry | at
    return entries


def _same(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")
