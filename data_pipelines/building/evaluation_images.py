"""Pictures of benchmarks, near which nothing is to be trained on.

Paper: appendix A.3.4. ALIGN and LTIP were cleaned of what is near to pictures of benchmarks, found
by embeddings, M3W and VTP were not. Here a picture is known by its perceptual hash, and pages are
cleaned in the same way where it is asked for.
"""

import glob
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.building.near_duplicates import distances, perceptual_hash, small
from flamingo_jax.images import BadMedia

MAX_DISTANCE = 4  # bits of 64 that a near picture's hash differs in


def add_flag(parser: Any) -> None:
    """`--evaluation_images`, of a source of pictures."""
    help_text = "pictures of benchmarks; what is near to one is not trained on"
    parser.add_argument("--evaluation_images", metavar="GLOB", help=help_text)


def hashes(pattern: str | None) -> bytes:
    """Of all files of a pattern, 8 bytes each, sorted; ValueError for none, or a damaged one."""
    if not pattern:
        return b""
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise ValueError(f"--evaluation_images={pattern}: no such file: check the pattern")
    found = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                found.append(perceptual_hash(small(file.read())))
        except (OSError, BadMedia) as error:
            raise ValueError(
                f"evaluation picture {path} cannot be read: {error}: replace it, or leave it out"
            ) from error
    return np.unique(np.array(found, np.uint64)).tobytes()


def check(picture: Image.Image, known: bytes, max_distance: int = MAX_DISTANCE) -> None:
    """BadMedia `near_evaluation_image` for a `small` picture that is near one of `hashes`."""
    if not known:
        return
    nearest = int(distances(perceptual_hash(picture), np.frombuffer(known, np.uint64)).min())
    if nearest <= max_distance:
        raise BadMedia("near_evaluation_image", f"{nearest} of 64 bits from one")
