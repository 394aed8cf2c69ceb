"""A finished model by the path that `--model` was given."""

import pathlib

from experiments import cli, parts
from flamingo_jax import model_directory
from flamingo_jax.model import Model


def load(value: str) -> Model:
    """The model, its frozen parts brought into the cache first where they are not."""
    directory = cli.local_path("--model", value)
    bring(directory)
    with cli.user_input():
        return model_directory.load(directory)


def bring(directory: pathlib.Path) -> None:
    """Fetches the packages of a model's frozen parts, unless it has them embedded."""
    if not model_directory.has_frozen(directory):
        card = model_directory.read_card(directory)
        parts.bring([card.language_model.package, card.vision.package])
