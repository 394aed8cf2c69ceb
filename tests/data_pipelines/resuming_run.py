"""A run over a four-dataset mixture that keeps its place as training does; to be killed.

    python -m tests.data_pipelines.resuming_run DATASETS RUN [STEPS]

Appends a line "step digest" to RUN/log after each step and saves its state every third step.
"""

import hashlib
import json
import os
import pathlib
import sys

import jax
import numpy as np

from data_pipelines.streams.mixture import Mixture
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.tokenizer import Tokenizer
from tests.data_pipelines.tiny_records import pairs, picture, record
from tests.data_pipelines.tiny_video import video

SAVE_EVERY = 3
_PP = ImagePreprocessing(size_px=8)


def datasets() -> dict[str, list[dict]]:
    """Records by name; sizes with no common factor with batches, and bad records among them."""
    pages = [
        record(str(i), f"one{i} two{i}", [3, 6], [picture(i), picture(i + 50)]) for i in range(23)
    ]
    videos = [record(str(i), f"clip {i}", media=[video(6 + i)]) for i in range(7)]
    return {
        "pages": [*pages, record("bad", "x", [0], [b"no picture"])],
        "pairs": pairs(31),
        "noisy": [*pairs(17), record("bad", "x", [0, 0], [picture(1)])],
        "videos": videos,
    }


def configs(folder: str) -> list[StreamConfig]:
    """Streams that use all the chance there is; batch sizes that 1, 2 and 3 processes divide."""
    at = pathlib.Path(folder)
    common = {"num_tokens": 24, "seed": 5, "max_skipped_share": 0.5, "flip": 0.5, "color": 0.3}
    kinds = {
        "pages": {"kind": "page", "batch_size": 12, "max_media": 2},
        "pairs": {"kind": "pair", "batch_size": 18},
        "noisy": {"kind": "pair", "batch_size": 6, "pairs_per_row": 2},
        "videos": {"kind": "pair", "batch_size": 6, "num_frames": 2, "fps": 2.0},
    }
    return [
        StreamConfig(name=name, data_dir=str(at / name / "1.0.0"), **common | kind)
        for name, kind in kinds.items()
    ]


def mixture(folder: str, state=None, process=(0, 1)) -> Mixture:
    """The mixture of the datasets in `folder`."""
    return Mixture(
        configs(folder),
        Tokenizer.byte_level(),
        preprocessing=_PP,
        state=state,
        process_index=process[0],
        process_count=process[1],
    )


def digest(steps: list[dict]) -> str:
    """Of all bytes of one step's batches, those of several processes joined in order."""
    sha = hashlib.sha256()
    for name in steps[0]:
        for arrays in zip(*(jax.tree.leaves(step[name]) for step in steps), strict=True):
            sha.update(np.concatenate(arrays).tobytes())
    return sha.hexdigest()


def main() -> None:
    folder, run = sys.argv[1], pathlib.Path(sys.argv[2])
    last_step = int(sys.argv[3])
    saved = run / "state.json"
    state = json.loads(saved.read_text()) if saved.exists() else {"step": 0, "data": None}
    batches = mixture(folder, state["data"])
    with open(run / "log", "a") as log:
        for step in range(state["step"], last_step):
            log.write(f"{step} {digest([next(batches)])}\n")
            log.flush()
            if (step + 1) % SAVE_EVERY == 0:
                partial = run / "partial.json"
                partial.write_text(json.dumps({"step": step + 1, "data": batches.state()}))
                os.replace(partial, saved)


if __name__ == "__main__":
    main()
