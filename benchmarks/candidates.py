r"""Candidates side by side behind one prompt, against each of them in a prompt of its own.

    python -m benchmarks.candidates --model=runs/demo --shots=4

Prompts are random pictures with words, candidates random words. Both sides are this library and
give the same likelihoods: `Model.likelihoods` reads a prompt once, `Model.score` of the prompts
with a candidate behind them reads it once a candidate. Each runs once to compile and then
`--rounds` times, in turns.
"""

import itertools
import statistics
import time

import numpy as np
from absl import flags

import flamingo_jax
from experiments import cli
from flamingo_jax.model import Model
from flamingo_jax.prompts import EndOfChunk, ImagePart, Part, Prompt, TextPart

_MODEL = flags.DEFINE_string("model", None, "Model directory, or a run's.", required=True)
_PROMPTS = flags.DEFINE_integer("prompts", 8, "Prompts.", lower_bound=1)
_CANDIDATES = flags.DEFINE_integer("candidates", 40, "Candidates of each prompt.", lower_bound=1)
_SHOTS = flags.DEFINE_integer("shots", 0, "Pictures with text before a prompt's own.", 0)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Times each side is run.", lower_bound=1)

WORDS = ("cat", "red", "house", "of", "big", "tree", "car", "with", "two", "birds", "sun", "boat")


def main() -> None:
    """Prints seconds of both sides, their ratio, and how far apart the likelihoods are."""
    model, rng = flamingo_jax.load(_MODEL.value), np.random.default_rng(0)
    asked = [Prompt(str(i), question(model, rng)) for i in range(_PROMPTS.value)]
    texts = [[words(rng) for _ in range(_CANDIDATES.value)] for _ in asked]
    seconds: dict[str, list[float]] = {"side by side": [], "one by one": []}
    found = {}
    for turn, (name, side) in itertools.product(
        range(_ROUNDS.value + 1),
        (("side by side", side_by_side), ("one by one", one_by_one)),
    ):
        began_s = time.perf_counter()
        found[name] = side(model, asked, texts)
        if turn:
            seconds[name].append(time.perf_counter() - began_s)
    for name, values in seconds.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{name:12}  {statistics.median(values):7.2f} s ({spread})")
    ratio = statistics.median(seconds["side by side"]) / statistics.median(seconds["one by one"])
    apart = np.abs(found["side by side"] - found["one by one"]).max()
    print(f"ratio {ratio:.2f}; likelihoods at most {apart:.1e} nats apart")


def question(model: Model, rng: np.random.Generator) -> tuple[Part, ...]:
    """Shots and a picture that is asked about."""
    size = model.config.vision.preprocessing.size_px
    parts: list[Part] = []
    for shot in range(_SHOTS.value + 1):
        parts.append(ImagePart(rng.integers(0, 256, (size, size, 3), np.uint8)))
        if shot < _SHOTS.value:
            parts += [TextPart(f"Output:{words(rng)}"), EndOfChunk()]
    return *parts, TextPart("Output:")


def words(rng: np.random.Generator) -> str:
    """One to three words, with the space that comes before."""
    return "".join(f" {word}" for word in rng.choice(WORDS, rng.integers(1, 4)))


def side_by_side(model: Model, asked: list[Prompt], texts: list[list[str]]) -> np.ndarray:
    """f32[prompts, candidates]"""
    return np.stack(model.likelihoods(asked, texts, closed=False))


def one_by_one(model: Model, asked: list[Prompt], texts: list[list[str]]) -> np.ndarray:
    """f32[prompts, candidates]"""
    rows = [
        Prompt(prompt.id, (*prompt.parts, TextPart(text)))
        for prompt, answers in zip(asked, texts, strict=True)
        for text in answers
    ]
    lengths = [len(model.tokenizer.encode(text)) for answers in texts for text in answers]
    scored = model.score(rows)
    sums = [sum(s.log_probs[-n:]) for s, n in zip(scored, lengths, strict=True)]
    return np.reshape(sums, (len(asked), -1))


if __name__ == "__main__":
    cli.run(main)
