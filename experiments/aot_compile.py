r"""Compiles a recipe's train step with the TPU compiler for a slice that need not be there.

    python -m experiments.aot_compile --config=experiments/configs/flamingo.py:80b \
        --topology=v5p:8x8x8 --json=80b.json

Takes recipes of Flamingo's stage and of those before it, such as `configs/contrastive.py:f6`.

Prints whether it fits, what a step does (operations, HBM traffic, collectives by mesh axis), the
time the chips' published rates allow it, what binds, and the MFU that would be. docs/scaling.md
says how to read it. Needs libtpu (`pip install 'flamingo_jax[tpu]'`), and no TPU.
"""

# Before JAX, which reads the variables that this sets.
import flamingo_jax.aot.no_tpu  # noqa: F401  # isort: skip

import json
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from experiments import cli
from experiments.planning import abstract_pretraining_step, abstract_step, aot_text
from experiments.training import processes
from flamingo_jax.aot import chips
from flamingo_jax.aot import report as report_lib
from flamingo_jax.core import partition

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, as PATH.py:VARIANT.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "Slice, such as v5p:8x8x8, v4:4x4x8, v6e:16x16.")
_SLICES = flags.DEFINE_integer(
    "num_slices",
    1,
    "Slices on a data-centre network; the recipe's mesh.slice must say the same.",
    lower_bound=1,
)
_EFFORT = flags.DEFINE_float(
    "effort",
    0.0,
    "Of the compiler in making the step fast: 0 as in a run; -1 compiles in a quarter to a third "
    "of the time, to the same memory within a few percent, and more HBM traffic.",
    lower_bound=-1.0,
    upper_bound=1.0,
)
_JSON = flags.DEFINE_string("json", None, "File to write the report to, as JSON.")
_HLO = flags.DEFINE_string("hlo", None, "File to write the compiled program's text to.")
flags.mark_flags_as_required(["config", "topology"])


def main() -> None:
    """Compiles, prints the report, and writes it where asked."""
    for flag in (_JSON, _HLO):
        _check_writable(flag)
    with cli.user_input():
        topology = chips.parse(_TOPOLOGY.value, _SLICES.value)
        mesh = partition.make_mesh(**_CONFIG.value.mesh, devices=topology.devices())
        _check_slices(mesh.shape["slice"])
        own = _CONFIG.value.stage == "flamingo"
        maker = abstract_step if own else abstract_pretraining_step
        abstract = maker.make(_CONFIG.value, mesh)
    jax.config.update("jax_exec_time_optimization_effort", _EFFORT.value)
    processes.keep_no_programs()  # one for chips that are not there could not be read back
    _say(f"lowering the train step for {topology.name} ...")
    lowered, lower_s = _timed(abstract.lower)
    _say("compiling it, which takes minutes where the model is large ...")
    try:
        compiled, compile_s = _timed(lambda: report_lib.compile_for(topology, lowered))
    except report_lib.DoesNotFit as error:
        cli.fail(str(error))
    if _HLO.value:
        pathlib.Path(_HLO.value).write_text(compiled.as_text())
    found = report_lib.report(compiled, abstract, topology)
    found |= {"effort": _EFFORT.value, "lower_s": lower_s, "compile_s": compile_s}
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(found, indent=2) + "\n")
    print(aot_text.render(found))


def _check_writable(flag: flags.FlagHolder) -> None:
    """Fails before the work where its file could not be written after it."""
    if flag.value is None:
        return
    file = pathlib.Path(flag.value)
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        cli.fail(f"--{flag.name}={file} cannot be written: name a file in a folder that is there")


def _check_slices(size: int) -> None:
    if size != _SLICES.value:
        raise ValueError(
            f"mesh.slice={size} with --num_slices={_SLICES.value}: set both to the number of slices"
        )


def _timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What it returns, and the wall time and this process's processor time that it took."""
    before = _clock()
    result = work()
    wall, processor = (after - b for after, b in zip(_clock(), before, strict=True))
    return result, {"wall": wall, "processor": processor}


def _clock() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.run(main)
