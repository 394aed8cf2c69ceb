"""Which stage a recipe is of: Flamingo's own training, or that of one of its parts before."""

from typing import Any

COMMANDS = {
    "flamingo": "experiments.train",
    "contrastive": "experiments.pretrain_contrastive",
    "language_model": "experiments.pretrain_lm",
}


def check(config: Any, stage: str) -> None:
    """ValueError, naming the command that takes it, for a recipe of another stage."""
    if config.stage not in COMMANDS:
        raise ValueError(f"stage={config.stage!r}: use one of {list(COMMANDS)}")
    if config.stage != stage:
        raise ValueError(
            f"this recipe is of stage={config.stage!r}, not {stage!r}: give it to "
            f"{COMMANDS[config.stage]}"
        )
