r"""The train step of a recipe in this codebase against the same model in PyTorch.

    python -m benchmarks.demo_step

Both sides start from the same weights (SmolLM2-135M and fresh trained parts) and see the same
batches of the recipe; two processes take turns, step by step, on all cores. That both losses and
gradient norms agree says that it is the same model. Times are of whole steps, optimizer included.
"""

import datetime
import os
import pathlib
import platform
import statistics
import tempfile

import jax
from absl import flags
from ml_collections import config_flags

from benchmarks import exchange
from data_pipelines.mixture import Mixture
from experiments import cli, datasets, frozen_features, parts
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

WARM_UP_STEPS = 3  # the first compiles, and the learning rate of the first is 0
NUM_BATCHES = 4  # different ones, seen in turn


def main() -> None:
    """Prints one table."""
    torch_flags = [f"--logits={_LOGITS.value}"]
    torch_flags += ["--compile"] * _COMPILE.value
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        step_flops = write_exchange(_CONFIG.value, folder)
        ours = exchange.Worker("benchmarks.demo_step_jax", name)
        theirs = exchange.Worker("benchmarks.demo_step_torch", name, *torch_flags)
        facts = [worker.ask() for worker in (ours, theirs)]
        rows = [(ours.ask(), theirs.ask()) for _ in range(WARM_UP_STEPS + _STEPS.value)]
        ours.close()
        theirs.close()
    report(facts, rows, step_flops, " ".join(torch_flags))


def write_exchange(config, folder: pathlib.Path) -> float:
    """Weights and batches of the recipe for both sides; returns FLOPs a step."""
    with cli.user_input():
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


def report(facts, rows, step_flops: float, torch_flags: str) -> None:
    """The numbers of one run, one line each."""
    warm, timed = rows[:WARM_UP_STEPS], rows[WARM_UP_STEPS:]
    versions = facts[0]["versions"] | facts[1]["versions"]
    print(f"{datetime.date.today()}  {_cpu()}, {len(os.sched_getaffinity(0))} cores")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"torch: {torch_flags}; a step: {step_flops / 1e9:.1f} GFLOP, counted for both alike")
    print(f"{'':24}{'flamingo_jax':>14}{'PyTorch':>14}")

    def line(name, values, form):
        print(f"{name:24}" + "".join(f"{value:14{form}}" for value in values))

    seconds = [[row[side]["seconds"] for row in timed] for side in (0, 1)]
    medians = [statistics.median(s) for s in seconds]
    line("trained parameters", [f["trained"] for f in facts], ",")
    line("language model", [f["language_model"] for f in facts], ",")
    line("first step, s", [r["seconds"] for r in warm[0]], ".2f")
    line("median of a step, s", medians, ".3f")
    line("fastest step, s", [min(s) for s in seconds], ".3f")
    line("slowest step, s", [max(s) for s in seconds], ".3f")
    line("GFLOP/s at the median", [step_flops / m / 1e9 for m in medians], ".0f")
    for name in ("loss", "grad_norm"):
        line(f"{name}, first step", [r[name] for r in rows[0]], ".5f")
        line(f"{name}, last step", [r[name] for r in rows[-1]], ".5f")
    ratios = [a / b for a, b in zip(*seconds, strict=True)]
    print(
        f"flamingo_jax / PyTorch: {medians[0] / medians[1]:.3f} of the medians, "
        f"{min(seconds[0]) / min(seconds[1]):.3f} of the fastest; "
        f"{min(ratios):.3f} to {max(ratios):.3f} over {len(ratios)} pairs of steps"
    )


def _cpu() -> str:
    """The processor's name, where the system tells it."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    cli.run(main)
