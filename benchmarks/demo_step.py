r"""The train step of a recipe in this codebase against the same model in PyTorch.

    python -m benchmarks.demo_step

Both sides start from the same weights (SmolLM2-135M and fresh trained parts) and see the same
batches of the recipe; two processes take turns, step by step, on all cores. That both losses and
gradient norms agree says that it is the same model. Times are of whole steps, optimizer included.
"""

import pathlib
import tempfile

import jax
from absl import flags
from ml_collections import config_flags

from benchmarks import exchange, turns
from data_pipelines.streams.mixture import Mixture
from experiments import cli
from experiments.frozen import frozen_features, parts
from experiments.training import datasets
from flamingo_jax import model_directory
from flamingo_jax.config import from_dict
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution, unroll
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.train import flops, optim
from flamingo_jax.weights import new_tokens

_CONFIG = config_flags.DEFINE_config_file(
    "config", "experiments/configs/flamingo.py:demo", "Recipe, as PATH.py:VARIANT."
)
_STEPS = flags.DEFINE_integer("steps", 15, "Steps of each side that are timed.", lower_bound=1)
_LOGITS = flags.DEFINE_enum(
    "torch_logits", "all", ["all", "targets"], "Where PyTorch computes logits; ours: targets."
)
_COMPILE = flags.DEFINE_bool("torch_compile", False, "torch.compile the model (needs a compiler).")

NUM_BATCHES = 4  # different ones, seen in turn


def main() -> None:
    """Prints one table."""
    torch_flags = [f"--logits={_LOGITS.value}"]
    torch_flags += ["--compile"] * _COMPILE.value
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        step_flops = write_exchange(_CONFIG.value, folder)
        ours = exchange.Worker("benchmarks.jax_worker", name)
        theirs = exchange.Worker("benchmarks.demo_step_torch", name, *torch_flags)
        facts, steps = turns.take(ours, theirs, _STEPS.value)
    turns.report("PyTorch", facts, steps, step_flops, f"torch: {' '.join(torch_flags)}")


def write_exchange(config, folder: pathlib.Path) -> float:
    """Weights and batches of the recipe for both sides; returns FLOPs a step."""
    with cli.user_input():
        parts.bring(config.frozen.values())
        card = parts.model_card(config)
        datasets.prepare(config)
        streams = datasets.stream_configs(config)
        setup = exchange.Setup(
            card.config,
            from_dict(optim.OptimizerConfig, config.optim.to_dict(), "optim."),
            from_dict(Execution, config.execution.to_dict(), "execution."),
            card.dtypes,
            datasets.weights(config),
        )
    tokenizer = parts.tokenizer(card)
    frozen = model_directory.frozen_params(card)
    features, frozen = frozen_features.prepare(config, card, frozen, tokenizer)
    trainable = params_lib.init(
        lambda rngs: Flamingo(card.config, Execution(scan=False), rngs=rngs),
        config.seed,
        keep=params_lib.is_trainable,
    )
    trainable["new_tokens"] = new_tokens.initialise(
        trainable["new_tokens"], frozen["language_model"], config.seed
    )
    data = Mixture(streams, tokenizer, features=features)
    batches = [next(data) for _ in range(NUM_BATCHES)]
    data.close()
    exchange.write(folder, setup, jax.device_get(trainable), unroll(frozen), batches)
    return flops.train_step(card.config, streams)


if __name__ == "__main__":
    cli.run(main)
