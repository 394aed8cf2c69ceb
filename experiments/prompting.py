"""What `sample` and `score` share: which model and prompts, and one answer a line."""

import json
from typing import Any

from absl import flags

from experiments import cli, parts
from flamingo_jax import model_directory
from flamingo_jax.model import Model
from flamingo_jax.prompts import Prompt, read_prompts

_MODEL = flags.DEFINE_string("model", None, "Model directory, or the workdir of a training run.")
_PROMPT = flags.DEFINE_string("prompt", None, "Prompt file: .json is one, .jsonl has one a line.")
JSON = flags.DEFINE_bool("json", False, "Print one JSON object a line.")
flags.mark_flags_as_required(["model", "prompt"])


def prompts() -> list[Prompt]:
    """What `--prompt` names; PromptError."""
    return read_prompts(_PROMPT.value)


def model() -> Model:
    """What `--model` names, its frozen parts brought into the cache first where they are not."""
    directory = _MODEL.value
    if not model_directory.has_frozen(directory):
        card = model_directory.read_card(directory)
        parts.bring([card.language_model.package, card.vision.package])
    with cli.user_input():
        return model_directory.load(directory)


def print_json(answer: dict[str, Any]) -> None:
    """One line of standard output."""
    print(json.dumps(answer, ensure_ascii=False), flush=True)


def one_line(text: str) -> str:
    """Text with its line breaks and tabs made visible."""
    return text.translate({ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"})
