"""What the processes of a benchmark hand each other: files once, then turns of one line each.

The parent writes a folder (`setup.json`, parameters, batches) and starts the workers. A worker
answers every line on its standard input with one line of JSON, so only one of them works at a time
and none waits in a loop that would take a core from the other.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.numpy
from flax import traverse_util

from flamingo_jax.batch import Batch
from flamingo_jax.config import DTypePolicy, FlamingoConfig, from_dict, to_dict
from flamingo_jax.core.stack import Execution
from flamingo_jax.train.optim import OptimizerConfig

Tree = dict[str, Any]
Batches = dict[str, Batch]  # one step: a batch of every dataset
Answer = Callable[[], Mapping[str, Any]]

_SETUP, _PARAMS, _BATCHES = "setup.json", "{}.safetensors", "batches.npz"


@dataclasses.dataclass(frozen=True)
class Setup:
    """The recipe, as far as a training step needs it."""

    config: FlamingoConfig
    optim: OptimizerConfig
    execution: Execution
    dtypes: DTypePolicy
    weights: dict[str, float]  # of each dataset's loss


def write(
    folder: pathlib.Path, setup: Setup, trainable: Tree, frozen: Tree, steps: Sequence[Batches]
) -> None:
    """Parameters are those of unrolled stacks, `language_model` and `vision/alignment` suffice."""
    (folder / _SETUP).write_text(json.dumps(to_dict(setup)))
    for name, tree in (("trainable", trainable), ("frozen", frozen)):
        flat = traverse_util.flatten_dict(tree, sep="/")
        flat = {path: np.array(leaf, order="C") for path, leaf in flat.items()}
        safetensors.numpy.save_file(flat, folder / _PARAMS.format(name))
    arrays = {}
    for i, batches in enumerate(steps):
        for name, batch in batches.items():
            fields = {field: x for field, x in batch._asdict().items() if x is not None}
            arrays |= {f"{i}/{name}/{field}": x for field, x in fields.items()}
    np.savez(folder / _BATCHES, **arrays)


def read(folder: pathlib.Path) -> tuple[Setup, Tree, Tree, list[Batches]]:
    """(setup, trainable, frozen, steps) as written."""
    setup = from_dict(Setup, json.loads((folder / _SETUP).read_text()))
    trees = []
    for name in ("trainable", "frozen"):
        flat = safetensors.numpy.load_file(folder / _PARAMS.format(name))
        trees.append(traverse_util.unflatten_dict(flat, sep="/"))
    steps: dict[int, dict[str, dict[str, np.ndarray]]] = {}
    for key, array in np.load(folder / _BATCHES).items():
        i, name, field = key.split("/")
        steps.setdefault(int(i), {}).setdefault(name, {})[field] = array
    batches = [{n: Batch(**fields) for n, fields in steps[i].items()} for i in sorted(steps)]
    return setup, *trees, batches


class Worker:
    """A process that runs `python -m module arguments` and answers `ask`."""

    def __init__(self, module: str, *arguments: str):
        self.name = module.split(".")[-1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self) -> Mapping[str, Any]:
        """The worker's next answer; the first is `facts`, then one a step."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended early, status {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Fills the dict with seconds by the clock, and of the CPU, which others disturb less."""
    times: dict[str, float] = {}
    clock, cpu = time.perf_counter(), time.process_time()
    yield times
    times["seconds"] = time.perf_counter() - clock
    times["cpu_seconds"] = time.process_time() - cpu


def serve(set_up: Callable[[], tuple[Answer, Answer]]) -> None:
    """A worker's whole life: facts once, then a step a line, until standard input ends.

    `set_up()` returns (facts, step). What libraries print goes to standard error.
    """
    reply = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    facts, step = set_up()
    for turn, _ in enumerate(sys.stdin):
        print(json.dumps(step() if turn else facts()), file=reply, flush=True)
