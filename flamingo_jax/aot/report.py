"""What a step is and does once it is compiled for a slice: what `aot_compile` prints."""

import importlib.metadata
import re
from typing import Any

import jax

from flamingo_jax.aot import chips, cost, hlo, roofline


class DoesNotFit(ValueError):
    """A step that needs more HBM than a chip has; the message says how much, and what to raise."""


def compile_for(topology: chips.Topology, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """The program of the slice's chips.

    Raises:
      DoesNotFit: libtpu finds no room for it.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFit(_does_not_fit(str(error), topology)) from error


def report(compiled: jax.stages.Compiled, step: Any, topology: chips.Topology) -> dict[str, Any]:
    """As JSON values: the program on one chip, and the time that it must take there.

    `step` is an `experiments.planning.abstract_step.AbstractStep`.
    """
    one = cost.of(hlo.parse(compiled.as_text()))
    times = roofline.roofline(one, topology, step.mesh)
    memory = compiled.memory_analysis()
    held = peak(memory)
    peak_flops = topology.num_chips * topology.chip.flops
    return {
        "topology": topology.name,
        "num_slices": topology.num_slices,
        "num_chips": topology.num_chips,
        "mesh": dict(step.mesh.shape),
        "batches": {
            name: {"sequences": b.tokens.shape[0], "tokens": b.tokens.shape[1]}
            for name, b in step.batches.items()
        },
        "microbatches": step.microbatches,
        "hbm": {
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "peak": held,
            "capacity": topology.chip.hbm_bytes,
            "spare": 1 - held / topology.chip.hbm_bytes,
        },
        "model_flops": step.model_flops,
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
        "mfu": step.model_flops / (peak_flops * times.step_s),
        "mfu_without_overlap": step.model_flops / (peak_flops * times.serial_s),
        "versions": {name: _version(name) for name in ("jax", "libtpu")},
    }


def peak(memory: Any) -> int:
    """Bytes of HBM that a chip needs, of a program's `memory_analysis`."""
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
        - memory.alias_size_in_bytes
    )


def _does_not_fit(message: str, topology: chips.Topology) -> str:
    """libtpu's message names what is needed and then what there is, such as 30.21G and 15.75G."""
    sizes = re.findall(r"\d+\.\d+[KMGT]", message)
    needed, available = sizes[:2] if len(sizes) > 1 else ("more", "less")
    return (
        f"the step does not fit: it needs {needed} of HBM a chip, {topology.chip.name} has "
        f"{available}; raise --config.microbatches, the chips of --topology, --config.mesh.fsdp or "
        "--config.mesh.tensor, or set --config.execution.remat=full"
    )


def _version(package: str) -> str | None:
    """Of an installed package; a libtpu that only TPU_LIBRARY_PATH names is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
