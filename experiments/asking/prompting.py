"""What `sample` and `score` share: which prompts, and one answer a line."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from experiments.asking import asked_model
from experiments.training import progress
from flamingo_jax.prompts import Prompt, read_prompts

flags.adopt_module_key_flags(asked_model)  # so that --help lists them
_PROMPT = flags.DEFINE_string("prompt", None, "Prompt file: .json is one, .jsonl has one a line.")
JSON = flags.DEFINE_bool("json", False, "Print one JSON object a line.")
flags.mark_flag_as_required("prompt")


def prompts() -> list[Prompt]:
    """What `--prompt` names; PromptError."""
    return read_prompts(_PROMPT.value)


@contextlib.contextmanager
def counted(total: int, doing: str, unit: str) -> Iterator[Callable[[int], object]]:
    """What to call with how many of `total` are done; nothing is shown of a single one."""
    if total < 2:
        yield lambda number: None
        return
    with progress.bar(total, doing, unit) as bar:
        yield bar.update


def print_json(answer: dict[str, Any]) -> None:
    """One line of standard output."""
    print(json.dumps(answer, ensure_ascii=False), flush=True)


def one_line(text: str) -> str:
    """Text with its line breaks and tabs made visible."""
    return text.translate({ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"})
