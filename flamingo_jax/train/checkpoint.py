"""Checkpoints of a run: what was trained, and every place needed to go on exactly.

Saved are trained parameters, optimizer state, step and random key (`state`), and the place in every
dataset (`data`, JSON); never a frozen weight. Orbax writes in the background and makes a checkpoint
visible in one rename, so a killed run leaves whole ones only.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from flax import traverse_util

from flamingo_jax.train.state import TrainState

Tree = Any


class CheckpointError(Exception):
    """No checkpoint of the folder can be read; the message says what to do."""


class Checkpoints:
    """The checkpoints under one folder, the newest `max_to_keep` of them."""

    def __init__(self, directory: pathlib.Path, max_to_keep: int = 2):
        self.directory = pathlib.Path(directory).absolute()
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_names=("state", "data"),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "data": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                max_to_keep=max_to_keep, enable_async_checkpointing=True, create=True
            ),
        )

    @property
    def latest_step(self) -> int | None:
        """The newest checkpoint's step; None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data: dict[str, Any]) -> None:
        """Copies the state off the devices and returns; the files are written in the background."""
        step = int(state.step)
        if step == self.latest_step:
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state._asdict()), data=ocp.args.JsonSave(data)
            ),
        )

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint that is whole, with the shapes, dtypes and shardings of `like`.

        Damaged newer ones are named in a warning and deleted, so that their steps can be saved
        again.

        Raises:
          CheckpointError: there are checkpoints, and none of them can be read.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        steps = sorted(self._manager.all_steps(), reverse=True)
        failures: list[str] = []
        for i, step in enumerate(steps):
            try:
                self._check_shapes(step, abstract["trainable"])
                found = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore()
                    ),
                )
            except Exception as error:  # whatever orbax or tensorstore meet in a damaged file
                failures.append(f"{step}: {str(error).splitlines()[0][:120]}")
                continue
            for damaged, failure in zip(steps[:i], failures, strict=True):
                logging.warning(
                    "%s: checkpoint %s; going on from step %d", self.directory, failure, step
                )
                self._manager.delete(damaged)
            return TrainState(**found["state"]), found["data"]
        raise CheckpointError(
            f"{self.directory}: no checkpoint fits this config ({'; '.join(failures)}). "
            "Start with the config it was made with, or delete the folder to train anew"
        )

    def _check_shapes(self, step: int, want: Tree) -> None:
        """CheckpointError at the first trained parameter that is another; reads no array."""
        saved = self._manager.item_metadata(step).state["trainable"]
        saved, want = (traverse_util.flatten_dict(tree, sep="/") for tree in (saved, want))
        for path in sorted(saved.keys() | want.keys()):
            a, b = (tuple(tree[path].shape) if path in tree else None for tree in (saved, want))
            if a != b:
                raise CheckpointError(f"{path} is {a or 'missing'} there and {b or 'missing'} here")

    def wait(self) -> None:
        """Until every save is on disk."""
        self._manager.wait_until_finished()

    @contextlib.contextmanager
    def finished_on(self, errors: tuple[type[Exception], ...]) -> Iterator[None]:
        """A save under way is finished where one of `errors` ends the block, and not lost."""
        try:
            yield
        except errors:
            self.close()
            raise

    def close(self) -> None:
        """Waits, then ends the background threads."""
        self._manager.wait_until_finished()
        self._manager.close()
