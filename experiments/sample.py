r"""Writes on after prompts of pictures and text, with a finished model.

    python -m experiments.sample --model=runs/demo --prompt=examples/one_photograph.json

A prompt is a JSON list of parts in reading order, [{"image": "cat.jpg"}, {"text": "Output:"}];
paths start at the prompt file's folder, and {"video": "clip.mp4"} stands for a clip. One prompt
prints its continuation; several (.jsonl) print a line each, id and continuation; with --json, an
object a line: id, text, tokens (ids), logprob.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from experiments import cli
from experiments.asking import asked_model, prompting
from experiments.training import processes
from flamingo_jax.model import Decoding, Model
from flamingo_jax.prompts import Prompt

flags.adopt_module_key_flags(prompting)  # so that --help lists them
_DECODE = flags.DEFINE_enum("decode", "greedy", ["greedy", "beam", "sample"], "How to write on.")
_NUM_BEAMS = flags.DEFINE_integer("num_beams", 3, "Beams of --decode=beam.", lower_bound=1)
_TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "Of --decode=sample.", lower_bound=0.0)
_TOP_K = flags.DEFINE_integer("top_k", 0, "Sample among so many tokens; 0: all.", lower_bound=0)
_TOP_P = flags.DEFINE_float(
    "top_p", 1.0, "Sample among the likeliest that reach it.", lower_bound=1e-6, upper_bound=1.0
)
_MAX_TOKENS = flags.DEFINE_integer("max_tokens", 32, "Tokens to write at most.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of --decode=sample.", lower_bound=0)


def main() -> None:
    """Prints a continuation of every prompt."""
    prompts, asked = prompting.prompts(), decoding()
    asked_model.join()
    found = list(answers(asked_model.load(), prompts, asked))
    if not processes.part():
        return
    for answer in found:
        if prompting.JSON.value:
            prompting.print_json(answer)
        elif len(prompts) == 1:
            print(answer["text"])
        else:
            print(f"{answer['id']}\t{prompting.one_line(answer['text'])}")


def decoding() -> Decoding:
    """What the flags ask for."""
    with cli.user_input():
        return Decoding(
            method=_DECODE.value,
            num_beams=_NUM_BEAMS.value,
            temperature=_TEMPERATURE.value,
            top_k=_TOP_K.value,
            top_p=_TOP_P.value,
            max_tokens=_MAX_TOKENS.value,
            seed=_SEED.value,
        )


def answers(model: Model, prompts: Sequence[Prompt], decoding: Decoding) -> Iterator[dict]:
    """For every prompt `id`, `text`, `tokens` (ids, the stop token too) and `logprob` (nats)."""
    if decoding.top_k > model.config.vocab_size:
        raise cli.UserError(
            f"--top_k={decoding.top_k}: the model has {model.config.vocab_size} tokens; use 0 to "
            "sample among all"
        )
    with prompting.counted(len(prompts), "writing", "answers") as tick:
        found = model.generate(prompts, decoding, tick=tick)
    for prompt, written in zip(prompts, found, strict=True):
        answer: dict[str, Any] = {"id": prompt.id, "text": written.text}
        yield answer | {"tokens": list(written.tokens), "logprob": written.log_prob}


if __name__ == "__main__":
    cli.run(main)
