r"""Trains a vision encoder with a text tower, contrastively: the stage before Flamingo's own.

    python -m experiments.pretrain_contrastive \
        --config=experiments/configs/contrastive.py:micro --workdir=runs/towers

The same command again goes on from the newest checkpoint. At the end `model/` holds both towers,
and a Flamingo takes the encoder with --config.frozen.vision=contrastive:/path/to/runs/towers/model.
"""

import signal

from absl import flags
from ml_collections import config_flags

from experiments import (
    cli,
    contrastive_report,
    contrastive_stage,
    pretraining,
    processes,
    stage_report,
)
from experiments.retrieval import Retrieval
from experiments.run_report import Clock
from flamingo_jax.weights import folders, two_towers

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, as PATH.py:VARIANT.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; made where it is missing.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> int:
    """Trains to `config.steps`, then writes both towers and the report."""
    config, workdir = _CONFIG.value, cli.local_path("--workdir", _WORKDIR.value)
    with cli.user_input():
        clock = Clock.start(workdir)
        processes.start()
        design = contrastive_stage.design(config)
        data = contrastive_stage.data(config)

    def measure(graph, reading) -> Retrieval:
        often = {"every": config.validate_every, "num_batches": config.validation_batches}
        held_out = data.validation, data.tokenizer
        return Retrieval(*held_out, graph, data.mesh, **often, reading=reading)

    finished = pretraining.run(config, workdir, design, data, clock, measure)
    if isinstance(finished, signal.Signals):
        return 128 + finished
    if finished is None:
        return 0
    with folders.whole(workdir / "model") as folder:
        two_towers.save(folder, contrastive_stage.towers(config), finished.params)
        data.tokenizer.to_file(folder / "tokenizer")
    chapter = contrastive_report.CHAPTER
    stage_report.write(workdir, chapter, config.variant, finished.place, clock)
    print(f"model: {workdir / 'model'}\nreport: {workdir / 'report.md'}")
    return 0


if __name__ == "__main__":
    cli.run(main)
