r"""What a recipe's finished model needs on a TPU slice that need not be there, to answer prompts.

    python -m benchmarks.serving --config=experiments/configs/flamingo.py:80b \
        --topology=v5p:2x2x4 --mesh=tensor=16

Compiles, with the TPU's own compiler, the program that `Model.generate` runs (pictures, prompt and
beam search). Prints how much HBM a chip needs, and the time that the chips' published rates allow a
step: one round of the search, which writes a token of every beam. Needs libtpu
(`pip install 'flamingo_jax[tpu]'`), and no TPU.
"""

# Before JAX, which reads the variables that this sets.
import flamingo_jax.aot.no_tpu  # noqa: F401  # isort: skip

import time

from absl import flags
from ml_collections import config_flags

from experiments import cli
from experiments.asking import mesh_flag
from experiments.planning import abstract_serving
from experiments.planning.abstract_serving import Asked
from experiments.planning.aot_text import GIB
from experiments.training import processes
from flamingo_jax.aot import chips, cost, hlo, loops, roofline
from flamingo_jax.aot import report as report_lib
from flamingo_jax.core import partition

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, as PATH.py:VARIANT.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "Slice, such as v5p:2x2x4.")
_PROMPTS = flags.DEFINE_integer("prompts", 8, "Prompts of a call.", lower_bound=1)
_TOKENS = flags.DEFINE_integer("tokens", 512, "Tokens of a prompt, with padding.", lower_bound=1)
_PICTURES = flags.DEFINE_integer("pictures", 8, "Pictures of a prompt.", lower_bound=1)
_BEAMS = flags.DEFINE_integer("beams", 3, "Beams; 1 is greedy.", lower_bound=1)
_MAX_TOKENS = flags.DEFINE_integer("max_tokens", 32, "Tokens to write.", lower_bound=1)
flags.mark_flags_as_required(["config", "topology"])
flags.adopt_module_key_flags(mesh_flag)


def main() -> None:
    """Prints memory of the whole call, and the roofline of a step."""
    asked = Asked(*(f.value for f in (_PROMPTS, _TOKENS, _PICTURES, _BEAMS, _MAX_TOKENS)))
    with cli.user_input():
        topology = chips.parse(_TOPOLOGY.value)
        axes = mesh_flag.sizes(mesh_flag.MESH.value or f"tensor={topology.num_chips}")
        mesh = partition.make_mesh(**axes, devices=topology.devices())
        shards = partition.batch_shards(mesh)
        if asked.prompts % shards:
            raise ValueError(f"--prompts={asked.prompts}: use a multiple of {shards}")
        serving = abstract_serving.make(_CONFIG.value, mesh)
    processes.keep_no_programs()  # one for chips that are not there could not be read back
    began_s = time.perf_counter()
    try:
        answer = report_lib.compile_for(topology, serving.lower_answer(asked))
    except report_lib.DoesNotFit as error:
        said = str(error).partition(";")[0]
        cli.fail(f"{said}; raise tensor in --mesh, or the chips of --topology")
    program = hlo.parse(answer.as_text())
    times = roofline.roofline(cost.of(program, loops.open_loop(program)), topology, mesh)
    used = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1)
    memory = answer.memory_analysis()
    held, capacity = report_lib.peak(memory), topology.chip.hbm_bytes
    print(
        f"{topology.name}: {topology.num_chips} chips, mesh {used or 'of one'}; {asked.prompts} "
        f"prompts of {asked.tokens} tokens and {asked.media} pictures, {asked.beams} beams\n"
        f"HBM a chip    {held / GIB:8.2f} GiB of {capacity / GIB:.0f}, {1 - held / capacity:.0%} "
        f"to spare; weights and prompts {memory.argument_size_in_bytes / GIB:.2f}\n"
        f"a step        {1e3 * times.compute_s:8.2f} ms computing, {1e3 * times.hbm_s:.2f} HBM, "
        f"{1e3 * times.network_s:.2f} networks\n"
        f"              {1e3 * times.step_s:8.2f} ms if all overlap, {1e3 * times.serial_s:.2f} if "
        f"nothing does; bound by {times.bound}\n"
        f"compiled in {time.perf_counter() - began_s:.0f} s"
    )


if __name__ == "__main__":
    cli.run(main)
