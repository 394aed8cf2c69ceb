r"""Says what a recipe's model holds and costs before it runs; makes no array and opens no data.

    python -m experiments.summarize --config=experiments/configs/flamingo.py:80b --num_devices=512

Parameters by component, frozen and trained; bytes a device under the recipe's mesh; FLOPs a step by
component, pass and dataset. Not counted in the bytes: activations and the compiler's temporaries.
"""

import json
import pathlib

import jax
from absl import flags
from ml_collections import config_flags

from experiments import cli
from experiments.planning import summary_text
from experiments.planning.summary import summarize

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, as PATH.py:VARIANT.")
_NUM_DEVICES = flags.DEFINE_integer(
    "num_devices", None, "Devices; by default as few as the recipe's mesh allows.", lower_bound=1
)
_JSON = flags.DEFINE_string("json", None, "File to write the summary to, as JSON.")
flags.mark_flag_as_required("config")


def main() -> None:
    """Prints the summary, and writes it where asked."""
    jax.config.update("jax_platforms", "cpu")  # accelerators may be busy with a run
    with cli.user_input():
        summary = summarize(_CONFIG.value, _NUM_DEVICES.value)
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(summary, indent=2) + "\n")
    print(summary_text.render(summary))


if __name__ == "__main__":
    cli.run(main)
