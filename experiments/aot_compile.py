r"""Compiles a recipe's train step with the TPU compiler for a slice that need not be there.

    python -m experiments.aot_compile --config=experiments/configs/flamingo.py:80b \
        --topology=v5p:8x8x8 --json=80b.json

Prints whether it fits, what a step does (operations, HBM traffic, collectives by mesh axis), the
time the chips' published rates allow it, what binds, and the MFU that would be. docs/scaling.md
says how to read it. Needs libtpu (`pip install "jax[tpu]==0.10.2"`), and no TPU.
"""

import os

# Read when JAX and libtpu load: there is no TPU to ask for, so none is looked for.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import importlib.metadata
import json
import pathlib
import resource
import time
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from experiments import abstract_step, aot_text, cli
from flamingo_jax.aot import chips, cost, hlo, roofline
from flamingo_jax.core import partition

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, as PATH.py:VARIANT.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "Slice, such as v5p:8x8x8, v4:4x4x8, v6e:16x16.")
_SLICES = flags.DEFINE_integer(
    "num_slices", 1, "Slices on a data-centre network; the recipe's mesh.slice must say the same."
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
    with cli.user_input():
        topology = chips.parse(_TOPOLOGY.value, _SLICES.value)
        mesh = partition.make_mesh(**_CONFIG.value.mesh, devices=topology.devices())
        abstract = abstract_step.make(_CONFIG.value, mesh)
    jax.config.update("jax_exec_time_optimization_effort", _EFFORT.value)
    found = report(abstract, topology) | {"effort": _EFFORT.value}
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(found, indent=2) + "\n")
    print(aot_text.render(found))


def report(abstract: abstract_step.AbstractStep, topology: chips.Topology) -> dict[str, Any]:
    """What the compiled step is and does on one chip, and the time that must take."""
    began = _clock()
    lowered = abstract.lower()
    lower = _since(began)
    began = _clock()
    compiled = lowered.compile()
    compile_ = _since(began)
    text = compiled.as_text()
    if _HLO.value:
        pathlib.Path(_HLO.value).write_text(text)
    one = cost.of(hlo.parse(text))
    times = roofline.roofline(one, topology, abstract.mesh)
    memory = compiled.memory_analysis()
    peak = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
        - memory.alias_size_in_bytes
    )
    peak_flops = topology.num_chips * topology.chip.flops
    return {
        "topology": topology.name,
        "num_slices": topology.num_slices,
        "num_chips": topology.num_chips,
        "mesh": dict(abstract.mesh.shape),
        "batches": {
            name: {"sequences": b.tokens.shape[0], "tokens": b.tokens.shape[1]}
            for name, b in abstract.batches.items()
        },
        "hbm": {
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "peak": peak,
            "capacity": topology.chip.hbm_bytes,
            "spare": 1 - peak / topology.chip.hbm_bytes,
        },
        "model_flops": abstract.model_flops,
        "executed_flops_per_chip": one.flops,
        "hbm_bytes_per_chip": one.hbm_bytes,
        "collective_bytes_per_chip": sum(t.bytes + t.slice_bytes for t in times.traffic),
        "collectives": [
            {
                "kind": t.kind,
                "axes": list(t.axes),
                "times": t.times,
                "bytes": t.bytes,
                "slice_bytes": t.slice_bytes,
                "seconds": t.seconds,
            }
            for t in times.traffic
        ],
        "custom_calls": one.kernels,
        "seconds": {
            "computing": times.compute_s,
            "hbm": times.hbm_s,
            "network": times.network_s,
            "step": times.step_s,
            "step_without_overlap": times.serial_s,
        },
        "bound": times.bound,
        "mfu": abstract.model_flops / (peak_flops * times.step_s),
        "mfu_without_overlap": abstract.model_flops / (peak_flops * times.serial_s),
        "lower_s": lower,
        "compile_s": compile_,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "libtpu")},
    }


def _clock() -> tuple[float, float]:
    """Wall time, and processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime


def _since(began: tuple[float, float]) -> dict[str, float]:
    now = _clock()
    return {"wall": now[0] - began[0], "processor": now[1] - began[1]}


if __name__ == "__main__":
    cli.run(main)
