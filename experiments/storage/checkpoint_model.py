"""A checkpoint as a model, `--model=runs/mine/checkpoints/20000`, while its run goes on or after.

What a checkpoint lacks to be one a run writes when it begins, to `untrained/`: the folder of a
model in which no trained parameter is. With them it becomes a whole one, in the cache.
"""

import contextlib
import hashlib
import pathlib
import re
import shutil

from etils import epath
from flax import traverse_util

from experiments import cli
from experiments.published.conversion import mebibytes
from experiments.storage import bucket
from experiments.training.processes import one_at_a_time
from flamingo_jax.cache import cache_dir
from flamingo_jax.core.stack import reroll
from flamingo_jax.train import checkpoint_params
from flamingo_jax.train.checkpoint import CheckpointError
from flamingo_jax.weights.files import checkpoint_files, folders, tensor_file
from flamingo_jax.weights.stage_folder import WEIGHTS

UNTRAINED = "untrained"
_CHECKPOINT = re.compile(r"(?:(?P<run>.*[^/])/+)?checkpoints/+\d+/*")


def run(value: str) -> str | None:
    """The workdir whose checkpoint is named; None where no checkpoint is."""
    found = _CHECKPOINT.fullmatch(value)
    return found and (found["run"] or ".")


def folder(name: str, value: str, untrained: pathlib.Path) -> pathlib.Path:
    """The model of the checkpoint that option `name` was given, and of its run's `untrained`.

    It is made once, by one process of this machine. UserError where the checkpoint is not there,
    or cannot be read.
    """
    asked, in_bucket = f"{name}={value}", bucket.is_address(value)
    if in_bucket:
        bucket.check(name, value)
    place = epath.Path(value.rstrip("/") if in_bucket else pathlib.Path(value).absolute())
    with bucket.reached(asked) if in_bucket else contextlib.nullcontext():
        try:
            identity = checkpoint_params.identity(place)
        except CheckpointError as error:
            raise cli.UserError(f"{asked}: {error}") from error
        if not untrained.is_dir():
            raise cli.UserError(
                f"{asked}: {untrained} is missing, which a run writes when it begins: give its "
                "command again, with more steps where it has ended"
            )
        told = [str(place), identity, *(p.read_text() for p in sorted(untrained.glob("*.json")))]
        digest = hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
        name = f"{place.parent.parent.name[:100]}-{place.name}-{digest}"
        here = cache_dir() / "models" / name
        with one_at_a_time(here.parent):
            if not here.is_dir():
                _make(here, place, untrained, asked)
    return here


def _make(here: pathlib.Path, place: epath.Path, untrained: pathlib.Path, asked: str) -> None:
    try:
        trained = reroll(checkpoint_params.read(place))
    except CheckpointError as error:
        raise cli.UserError(f"{asked}: {error}") from error
    params = checkpoint_files.tensors(untrained / WEIGHTS)
    params |= traverse_util.flatten_dict(trained, sep="/")
    total = sum(leaf.nbytes for leaf in params.values())
    with folders.whole(here) as partial, mebibytes(total, f"opening {asked}") as tick:
        shutil.copytree(untrained, partial, dirs_exist_ok=True)
        whole = traverse_util.unflatten_dict(params, sep="/")
        tensor_file.save(partial / WEIGHTS, whole, tick=tick)
