"""A model in a bucket, copied into the cache: once, and again where a file there is another.

It is there whole, or not at all.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

from data_pipelines.whole_files import write_json
from experiments import cli
from experiments.published.conversion import mebibytes
from experiments.storage import bucket
from experiments.storage.bucket import Tick
from experiments.storage.mirror import version
from experiments.training.processes import one_at_a_time
from flamingo_jax.cache import cache_dir
from flamingo_jax.weights.files import folders

_RECORD = ".versions.json"  # of each file, as it is in the bucket


def folder(name: str, value: str) -> pathlib.Path:
    """The copy of what option `name` was given: the address of a model, or of a run's workdir.

    UserError where no model is there, or the bucket cannot be read.
    """
    address = bucket.check(name, value)
    digest = hashlib.sha256(address.encode()).hexdigest()[:12]
    here = cache_dir() / "models" / f"{os.path.basename(address)[:100]}-{digest}"
    with one_at_a_time(here.parent), bucket.reached(f"{name}={address}"):
        _bring(*bucket.connect(address), here, f"{name}={address}")
    return here


def _bring(store: Any, path: str, here: pathlib.Path, asked: str) -> None:
    """Copies the model at `path`, or at its `model/`, unless the same one is here."""
    if store.isdir(f"{path}/model"):
        path = f"{path}/model"
    elif store.isdir(f"{path}/checkpoints"):
        raise cli.UserError(
            f"{asked} holds checkpoints and no model yet, which a run writes at its end: give its "
            f"command again, or name a checkpoint, {asked}/checkpoints/STEP"
        )
    there = _files(store, path)
    if not any(name.endswith(".json") and "/" not in name for name in there):
        raise cli.UserError(
            f"{asked} holds no model: give the model/ folder of a finished training run, or its "
            "workdir"
        )
    versions = {name: version(info) for name, info in there.items()}
    if _read(here / _RECORD) == versions:
        return
    total = sum(info["size"] for info in there.values())
    with folders.whole(here) as partial, mebibytes(total, f"copying {asked}") as tick:
        for name, info in there.items():
            _get(store, f"{path}/{name}", partial / name, info["size"], tick)
        if {name: version(info) for name, info in _files(store, path).items()} != versions:
            raise cli.UserError(f"{asked} was written while it was copied: try again")
        write_json(partial / _RECORD, versions)


def _files(store: Any, path: str) -> dict[str, dict[str, Any]]:
    """What the store knows of each file below a folder."""
    found = store.find(path, detail=True)
    return {name.removeprefix(f"{path}/"): info for name, info in found.items()}


def _get(store: Any, there: str, here: pathlib.Path, size: int, tick: Tick) -> None:
    here.parent.mkdir(parents=True, exist_ok=True)
    store.get_file(there, str(here), callback=bucket.counted(tick))
    if (found := here.stat().st_size) != size:
        raise OSError(f"{there} was cut at {found} of {size} bytes: try again")


def _read(path: pathlib.Path) -> Any:
    """The JSON of a file; None where there is none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
