r"""Trains a vision encoder with a text tower, contrastively: the stage before Flamingo's own.

    python -m experiments.pretrain_contrastive \
        --config=experiments/configs/contrastive.py:micro --workdir=runs/towers

Any key of the recipe can be set, as in --config.steps=300. The same command again goes on from the
newest checkpoint. At the end `model/` holds both towers,
and a Flamingo takes the encoder with --config.frozen.vision=contrastive:/path/to/runs/towers/model.
"""

from absl import flags
from ml_collections import config_flags

from experiments import cli
from experiments.pretraining import contrastive_stage, stage_run

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, as PATH.py:VARIANT.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; may be gs://BUCKET/FOLDER.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> int:
    """Trains to `config.steps`, then writes the model and the report."""
    return stage_run.command(contrastive_stage, _CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    cli.run(main)
