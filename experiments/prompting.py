"""What `sample` and `score` share: which model and prompts, and one answer a line."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from data_pipelines import progress_bar
from experiments import loading
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
    """What `--model` names."""
    return loading.load(_MODEL.value)


@contextlib.contextmanager
def progress(total: int, doing: str, unit: str) -> Iterator[Callable[[int], object]]:
    """What to call with how many of `total` are done; nothing is shown of a single one."""
    if total < 2:
        yield lambda number: None
        return
    with progress_bar.bar(total, doing, unit) as bar:
        yield bar.update


def print_json(answer: dict[str, Any]) -> None:
    """One line of standard output."""
    print(json.dumps(answer, ensure_ascii=False), flush=True)


def one_line(text: str) -> str:
    """Text with its line breaks and tabs made visible."""
    return text.translate({ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"})
