"""What a model answers to a prompt: text that it wrote, or how likely it found text."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Written:
    """A continuation: its text, its tokens with the stop token, their natural log-likelihood."""

    text: str
    tokens: tuple[int, ...]
    log_prob: float


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A candidate answer and its log-likelihood after the prompt, summed over its tokens."""

    text: str
    log_prob: float
    num_tokens: int


@dataclasses.dataclass(frozen=True)
class Scored:
    """Every text token of a prompt with its log-likelihood (None for the first)."""

    tokens: tuple[str, ...]
    log_probs: tuple[float | None, ...]
    candidates: tuple[Candidate, ...] = ()
