"""The model that an option names: on disk, in a bucket, or a checkpoint of a run.

What is no folder of this machine yet becomes one, in the cache.
"""

import pathlib

from experiments import cli
from experiments.storage import bucket, bucket_model, checkpoint_model
from flamingo_jax import model_directory
from flamingo_jax.model_directory import ModelCard


def folder(name: str, value: str) -> pathlib.Path:
    """The folder that option `name` was given: of a model, or the workdir of a run.

    UserError for none, and where a bucket or a checkpoint holds no model or cannot be read.
    """
    if run := checkpoint_model.run(value):
        untrained = _folder(name, f"{run}/{checkpoint_model.UNTRAINED}")
        return checkpoint_model.folder(name, value, untrained)
    return _folder(name, value)


def card(name: str, value: str) -> ModelCard:
    """What the model is; of a checkpoint nothing else is read, and JAX not begun with.

    UserError as `folder`; ModelDirectoryError where no Flamingo is there.
    """
    run = checkpoint_model.run(value)
    where = f"{run}/{checkpoint_model.UNTRAINED}" if run else value
    return model_directory.read_card(_folder(name, where))


def _folder(name: str, value: str) -> pathlib.Path:
    if bucket.is_address(value):
        return bucket_model.folder(name, value)
    return cli.local_path(name, value)
