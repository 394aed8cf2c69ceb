"""Prompt files with drawn pictures, for the tests of the commands that read them."""

import json
import pathlib
import subprocess
import sys

from data_pipelines.demo import synthetic

ROOT = pathlib.Path(__file__).parents[2]


def write(folder: pathlib.Path, *prompts: dict) -> pathlib.Path:
    """`prompts.jsonl` beside `red.png` and `blue.png`."""
    for color in ("red", "blue"):
        (folder / f"{color}.png").write_bytes(synthetic.draw(color, "circle", 0))
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    return path


def run(module: str, *arguments: object) -> subprocess.CompletedProcess:
    """`python -m MODULE ARGUMENTS`, from the repository's root."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
