"""Which part of a Flamingo lies in a folder that its own training or conversion left."""

import pathlib

from flamingo_jax.weights.encoders import pretrained_encoder, two_towers
from flamingo_jax.weights.language_models import pretrained_lm

_KEYS = {  # of a recipe, that takes the folder, by the file that says what is in it
    two_towers.CONFIG: "frozen.vision=contrastive",
    pretrained_encoder.CONFIG: "frozen.vision=pretrained",
    pretrained_lm.CONFIG: "frozen.language_model=pretrained",
}


def key(folder: pathlib.Path) -> str | None:
    """What a recipe puts before the folder's path, to name the part there; None where none is."""
    return next((key for file, key in _KEYS.items() if (folder / file).is_file()), None)


def find(directory: pathlib.Path) -> pathlib.Path:
    """The part's folder itself, where the workdir of its training is given."""
    inner = directory / "model"
    return inner if key(directory) is None and key(inner) is not None else directory
