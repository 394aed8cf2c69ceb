"""Slower rotation of rotary positions, for texts longer than a model was first trained on.

The kinds there are, as `rope_type` names them in transformers; what each makes of the frequencies
is computed in `core.positions`. Only the standard library is imported.
"""

import dataclasses
from typing import Literal

from flamingo_jax.config_checks import check_sizes


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
    """By how often a pair of dims turns in `trained_length` tokens (Llama 3.1).

    One that turns less than `slow_turns` times turns `factor` times slower, one that turns more
    than `fast_turns` times as before, others in between.
    """

    factor: float
    slow_turns: float
    fast_turns: float
    trained_length: int
    kind: Literal["llama3"] = "llama3"

    def __post_init__(self):
        check_sizes(self, "rope_scaling", "factor", "trained_length")
        if not 0 < self.slow_turns < self.fast_turns:
            raise ValueError(
                f"rope_scaling.slow_turns={self.slow_turns}: use more than 0, and less than "
                f"fast_turns={self.fast_turns}"
            )


@dataclasses.dataclass(frozen=True)
class LinearScaling:
    """All dims turn `factor` times slower (Chen et al. 2023; Gemma 3)."""

    factor: float
    kind: Literal["linear"] = "linear"

    def __post_init__(self):
        check_sizes(self, "rope_scaling", "factor")


RopeScaling = Llama3Scaling | LinearScaling
