"""What an importer of a published Flamingo hands over: config, trained parameters, and a report."""

import dataclasses
from typing import Any

import numpy as np

from flamingo_jax.config import FlamingoConfig
from flamingo_jax.weights.errors import BadWeightsFile

Tree = dict[str, Any]

# A bfloat16 keeps 8 bits and a float16 11, but none below 2 ** -24.
_ROUNDING, _SMALLEST = 2.0**-8, 2.0**-20


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A published model in our terms; its frozen parts stay where they are."""

    config: FlamingoConfig
    params: Tree  # resampler, gated_xattn, new_tokens, in the file's dtype
    new_tokens: tuple[str, ...]  # the tokenizer's, in the rows' order
    starts_with_bos: bool
    caption_template: str
    mapped: dict[str, int]  # tensors by part
    unneeded: int = 0  # buffers, and second copies of what is there
    drawn: int = 0  # rows of the head that the file has not, and that were drawn at random
    repeated: int = 0  # frozen tensors of the language model, equal to its own
    rows_compared: int = 0  # of the tables that the checkpoint repeats
    max_difference: float = 0.0  # between the two copies of a number


def compare_rows(
    what: str,
    found: np.ndarray,  # [rows, D] of the checkpoint
    base: np.ndarray,  # [rows, D] of the language model's own files
) -> float:
    """The largest difference; BadWeightsFile where one is more than rounding to 16 bits makes.

    And where a number is NaN or infinite.
    """
    largest = 0.0
    for start in range(0, len(base), 4096):  # some rows at a time, for float32 copies are made
        a, b = (x[start : start + 4096].astype(np.float32) for x in (found, base))
        difference = np.abs(a - b)
        off = difference > _ROUNDING * np.maximum(np.abs(a), np.abs(b)) + _SMALLEST
        if (odd := ~np.isfinite(difference)).any():
            raise BadWeightsFile(
                f"{what}: row {start + int(np.argmax(odd.any(-1)))} has NaN or infinite numbers, "
                "here or in the language model's own files: fetch both again"
            )
        if off.any():
            row = start + int(np.argmax(off.any(-1)))
            raise BadWeightsFile(
                f"{what}: row {row} differs from the language model's own by up to "
                f"{difference[row - start].max():.3g}: give the language model that it was "
                "trained on"
            )
        largest = max(largest, float(difference.max(initial=0.0)))
    return largest
