r"""Trains a language model by itself, as Chinchilla was: the other stage before Flamingo.

    python -m experiments.pretrain_lm \
        --config=experiments/configs/language_model.py:micro --workdir=runs/lm

Any key of the recipe can be set, as in --config.steps=300. The same command again goes on from the
newest checkpoint. At the end `model/` holds the model,
and a Flamingo takes it with --config.frozen.language_model=pretrained:/path/to/runs/lm/model.
"""

from absl import flags
from ml_collections import config_flags

from experiments import cli
from experiments.pretraining import language_model_stage, stage_run

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, as PATH.py:VARIANT.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; may be gs://BUCKET/FOLDER.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> int:
    """Trains to `config.steps`, then writes the model and the report."""
    return stage_run.command(language_model_stage, _CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    cli.run(main)
