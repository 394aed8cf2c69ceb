"""What a dataset's stream reads and how rows are made of it: the fields that a recipe sets.

Apart from the stream, so that a recipe's defaults are these and parsing one starts no TensorFlow.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from data_pipelines.streams.packing import MIN_TOKENS

MAX_WORKERS = 1024  # threads; a mistyped number would start for minutes


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """What to read and how rows are made of it. Paper: L = 256, N = 5 for pages, L = 32 or 64 for
    pairs; `num_tokens` that fits the captions saves the padding. Kind "text" is what a language
    model reads, media left out; "answer" is a pair whose loss counts the answer alone."""

    name: str
    data_dir: str  # the folder of a TFDS dataset's version, which holds dataset_info.json
    kind: Literal["page", "pair", "answer", "text"]
    batch_size: int  # rows, over all processes
    split: str = "train"  # TFDS notation, "train[:90%]"
    num_tokens: int = 256
    max_media: int = 5
    pairs_per_row: int = 1  # pairs, texts: how many share the num_tokens of a row, see packing
    p_next: float = 0.5  # pages: the share whose text sees the next image, not the last
    random_window: bool = True  # pages, texts; and clips of video, else from the middle
    num_frames: int = 1  # of a video, the paper has 8; a picture is one frame
    fps: float = 1.0  # frames taken of a second of video
    flip: float = 0.0  # the share of pictures and videos that are mirrored left to right
    color: float = 0.0  # strength of colour augmentation, see data_pipelines.streams.augmentation
    prepend_space: float = 0.5  # pairs: the share whose text begins with a space
    template: str = "{}"  # pairs: text around the caption
    score_template: bool = True  # pairs: the template's words before the caption count in the loss
    shuffle: bool = True
    repeat: bool = True
    seed: int = 0
    max_skipped_share: float = 0.1
    num_workers: int = 0  # threads that read and decode; 0: as many as the host has cores, to 16

    def __post_init__(self):
        if self.kind not in ("page", "pair", "answer", "text"):
            raise ValueError(
                f"{self.name}: kind={self.kind!r}: use 'page', 'pair', 'answer' or 'text'"
            )
        if self.kind == "pair" and self.template.count("{}") != 1:
            raise ValueError(
                f"{self.name}: template={self.template!r}: put one {{}} for the caption"
            )
        counts = ("batch_size", "num_tokens", "max_media", "num_frames")
        for field in (*counts, "pairs_per_row"):
            if getattr(self, field) < 1:
                raise ValueError(f"{self.name}: {field}={getattr(self, field)}: use 1 or more")
        if self.pairs_per_row > 1 and self.kind in ("page", "answer"):
            raise ValueError(
                f"{self.name}: pairs_per_row={self.pairs_per_row} of kind={self.kind!r}: use 1"
            )
        if self.pairs_per_row > 1 and self.num_tokens < MIN_TOKENS * self.pairs_per_row:
            raise ValueError(
                f"{self.name}: num_tokens={self.num_tokens} for pairs_per_row={self.pairs_per_row}:"
                f" use {MIN_TOKENS} tokens a pair or more"
            )
        if self.fps <= 0:
            raise ValueError(f"{self.name}: fps={self.fps}: use more than 0")
        for field in ("p_next", "prepend_space", "flip", "color", "max_skipped_share"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{self.name}: {field}={getattr(self, field)}: use 0 to 1")
        if self.seed < 0:
            raise ValueError(f"{self.name}: seed={self.seed}: use 0 or more")
        if not 0 <= self.num_workers <= MAX_WORKERS:
            raise ValueError(
                f"{self.name}: num_workers={self.num_workers}: use 0 (one a core) to {MAX_WORKERS}"
            )

    @property
    def num_media(self) -> int:
        """Places for media in a row: a page has several, a pair one, a text none."""
        places = {"page": self.max_media, "pair": self.pairs_per_row, "answer": 1, "text": 0}
        return places[self.kind]

    @classmethod
    def of(cls, name: str, dataset: Mapping[str, Any], **fields: Any) -> "StreamConfig":
        """Of a recipe's dataset, whose place and loss weight are not the stream's; `fields` are
        those that all datasets of a recipe share."""
        own = {key: value for key, value in dataset.items() if key not in ("path", "weight")}
        return cls(name, **fields, **own)

    def for_evaluation(self) -> "StreamConfig":
        """Each record once, in order, without augmentation: text sees its last image."""
        return dataclasses.replace(
            self,
            shuffle=False,
            repeat=False,
            p_next=0.0,
            random_window=False,
            prepend_space=0.0,
            flip=0.0,
            color=0.0,
        )
