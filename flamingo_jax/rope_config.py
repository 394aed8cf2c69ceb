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


@dataclasses.dataclass(frozen=True)
class YarnScaling:
    """As Llama 3.1's, but in between a ramp over the pairs, not their speed (Peng et al. 2023).

    Cosines and sines are `attention_factor` times as large, so logits its square.
    """

    factor: float
    trained_length: int
    attention_factor: float
    slow_turns: float = 1.0
    fast_turns: float = 32.0
    whole_pairs: bool = True  # the ramp begins and ends at one (not gpt-oss's)
    kind: Literal["yarn"] = "yarn"

    def __post_init__(self):
        check_sizes(self, "rope_scaling", "factor", "trained_length")


@dataclasses.dataclass(frozen=True)
class LongRopeScaling:
    """Each pair of dims by a factor of its own, found by search (Ding et al. 2024; Phi-3).

    Texts longer than `trained_length` have other factors than those up to it.
    """

    short_factors: tuple[float, ...]
    long_factors: tuple[float, ...]
    trained_length: int
    attention_factor: float
    kind: Literal["longrope"] = "longrope"

    def __post_init__(self):
        check_sizes(self, "rope_scaling", "trained_length")

    def check_dims(self, dims: int) -> None:
        """ValueError unless there is a factor for each pair of so many dims."""
        for name in ("short_factors", "long_factors"):
            if (found := len(getattr(self, name))) != dims // 2:
                raise ValueError(
                    f"rope_scaling.{name} are {found}: {dims} dims that rotate want {dims // 2}"
                )


RopeScaling = Llama3Scaling | LinearScaling | YarnScaling | LongRopeScaling
