r"""Trains a language model by itself, as Chinchilla was: the other stage before Flamingo.

    python -m experiments.pretrain_lm \
        --config=experiments/configs/language_model.py:micro --workdir=runs/lm

The same command again goes on from the newest checkpoint. At the end `model/` holds the model, and
a Flamingo takes it with --config.frozen.language_model=pretrained:/path/to/runs/lm/model.
"""

import signal

from absl import flags
from ml_collections import config_flags

from experiments import (
    cli,
    language_model_report,
    language_model_stage,
    pretraining,
    processes,
    stage_report,
)
from experiments.heldout_text import HeldoutText
from experiments.run_report import Clock
from flamingo_jax.weights import folders, pretrained_lm

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, as PATH.py:VARIANT.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; made where it is missing.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> int:
    """Trains to `config.steps`, then writes the model and the report."""
    config, workdir = _CONFIG.value, cli.local_path("--workdir", _WORKDIR.value)
    with cli.user_input():
        clock = Clock.start(workdir)
        processes.start()
        design = language_model_stage.design(config)
        data = language_model_stage.data(config)

    def measure(graph, reading) -> HeldoutText:
        often = {"every": config.validate_every, "num_batches": config.validation_batches}
        held_out = data.validation, data.tokenizer
        dtype = design.compute_dtype
        return HeldoutText(*held_out, graph, data.mesh, dtype=dtype, **often, reading=reading)

    finished = pretraining.run(config, workdir, design, data, clock, measure)
    if isinstance(finished, signal.Signals):
        return 128 + finished
    if finished is None:
        return 0
    with folders.whole(workdir / "model") as folder:
        pretrained_lm.save(folder, language_model_stage.model(config), finished.params)
        data.tokenizer.to_file(folder / pretrained_lm.TOKENIZER)
    chapter = language_model_report.CHAPTER
    stage_report.write(workdir, chapter, config.variant, finished.place, clock)
    print(f"model: {workdir / 'model'}\nreport: {workdir / 'report.md'}")
    return 0


if __name__ == "__main__":
    cli.run(main)
