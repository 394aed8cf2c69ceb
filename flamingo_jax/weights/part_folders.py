"""Which part of a Flamingo lies in a folder that its own training or conversion left."""

import pathlib

from flamingo_jax.weights import pretrained_encoder, pretrained_lm, two_towers

_KEYS = {  # of a recipe, that takes the folder, by the file that says what is in it
    two_towers.CONFIG: "frozen.vision=contrastive",
    pretrained_encoder.CONFIG: "frozen.vision=pretrained",
    pretrained_lm.CONFIG: "frozen.language_model=pretrained",
}


def named(directory: pathlib.Path) -> str | None:
    """As a recipe names the part there, or in a workdir's model/; None where there is none."""
    for folder in (directory, directory / "model"):
        for file, key in _KEYS.items():
            if (folder / file).is_file():
                return f"{key}:{folder.absolute()}"
    return None
