r"""How likely a finished model finds the text of prompts, and candidate answers after them.

    python -m experiments.score --model=runs/demo --prompt=examples/candidates.jsonl --json

Prompts are as for experiments.sample; an object of a .jsonl file may list "candidates". With
--json, an object a line: tokens (of the prompt's text), logprobs (natural, the first null), and
candidates, each with text, logprob (summed over its tokens) and num_tokens.
"""

from collections.abc import Iterator
from typing import Any

from absl import flags

from experiments import cli
from experiments.asking import asked_model, prompting
from experiments.training import processes
from flamingo_jax.model import Scored

flags.adopt_module_key_flags(prompting)  # so that --help lists them


def main() -> None:
    """Prints the likelihoods of every prompt."""
    prompts = prompting.prompts()
    asked_model.join()
    model = asked_model.load()
    readings = len(prompts) + sum(bool(prompt.candidates) for prompt in prompts)
    with prompting.counted(readings, "scoring", "readings") as tick:
        found = model.score(prompts, tick=tick)
    if not processes.part():
        return
    for prompt, scored in zip(prompts, found, strict=True):
        if prompting.JSON.value:
            prompting.print_json(answer(scored))
        else:
            print("\n".join(lines(prompt.id, scored)))


def answer(scored: Scored) -> dict[str, Any]:
    """`tokens`, `logprobs` and, where there are some, `candidates`."""
    values: dict[str, Any] = {"tokens": list(scored.tokens), "logprobs": list(scored.log_probs)}
    if scored.candidates:
        values["candidates"] = [
            {"text": c.text, "logprob": c.log_prob, "num_tokens": c.num_tokens}
            for c in scored.candidates
        ]
    return values


def lines(prompt_id: str, scored: Scored) -> Iterator[str]:
    """For a reader: the prompt's tokens in order, its candidates with the likeliest first."""
    yield f"{prompt_id}:"
    for token, log_prob in zip(scored.tokens, scored.log_probs, strict=True):
        value = "-" if log_prob is None else f"{log_prob:.3f}"
        yield f"  {value:>9}  {prompting.one_line(token)}"
    for c in sorted(scored.candidates, key=lambda c: -c.log_prob):
        length = f"{c.num_tokens} token{'s' * (c.num_tokens != 1)}"
        yield f"  {c.log_prob:9.3f}  candidate {prompting.one_line(c.text)} ({length})"


if __name__ == "__main__":
    cli.run(main)
