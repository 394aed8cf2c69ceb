"""Checkpoints of a run: what was trained, and every place needed to go on exactly.

Saved are trained parameters, optimizer state, step and random key (`state`), and the place in every
dataset (`data`, JSON); never a frozen weight. Orbax writes in the background and makes a checkpoint
visible in one rename, in a bucket (`gs://BUCKET/...`) by a file that is written last; so a killed
run leaves whole ones only.
"""

import contextlib
import dataclasses
import re
import shutil
from collections.abc import Iterator
from concurrent import futures
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from flax import traverse_util
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from flamingo_jax.train.state import TrainState

Tree = Any
_ASIDE = "unreadable"
_PATIENCE_S = 60.0  # for what a checkpoint is to come after
_MIB = 1 << 20
_SYSTEM_ERROR = re.compile(r": ([^:]+) \[os_error_code")  # at the end of what tensorstore says


class _Patience(NamedTuple):
    """As much of a future as orbax asks for."""

    other: futures.Future

    def result(self, timeout: float | None = None) -> None:
        futures.wait([self.other], _PATIENCE_S)


class _DataHandler(ocp.JsonCheckpointHandler):
    """JSON whose save ends when something else does too."""

    async def async_save(self, directory: epath.Path, args: "_DataSave") -> list[Any]:
        saved = await super().async_save(directory, args=args)
        return saved if args.after is None else [*saved, _Patience(args.after)]


@ocp.args.register_with_handler(_DataHandler, for_save=True)
@dataclasses.dataclass
class _DataSave(ocp.args.JsonSave):
    """Saves `item`, and waits for `after`."""

    after: futures.Future | None = None


@ocp.args.register_with_handler(_DataHandler, for_restore=True)
@dataclasses.dataclass
class _DataRestore(ocp.args.JsonRestore):
    """Reads it."""


class CheckpointError(Exception):
    """No checkpoint of the folder can be read, or none written; the message says what to do."""


class Checkpoints:
    """The checkpoints under one folder: the newest `max_to_keep`, and milestones.

    Milestones are of the steps that `keep_every` divides, and never deleted; 0: there are none.
    """

    def __init__(self, directory: epath.PathLike, max_to_keep: int = 2, keep_every: int = 0):
        self.directory = epath.Path(directory)
        if "://" not in str(self.directory):
            self.directory = self.directory.absolute()
        kept = [policies.LatestN(max_to_keep)]
        kept += [policies.EveryNSteps(keep_every)] if keep_every else []
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_names=("state", "data"),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "data": _DataHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(kept),
                enable_async_checkpointing=True,
                create=True,
            ),
        )

    @property
    def latest_step(self) -> int | None:
        """The newest checkpoint's step; None where there is none."""
        return self._manager.latest_step()

    def save(
        self, state: TrainState, data: dict[str, Any], after: futures.Future | None = None
    ) -> None:
        """Copies the state off the devices and returns; the files are written in the background.

        The checkpoint is visible once `after` is done too, if that takes no more than a minute.

        Raises:
          CheckpointError: there is no room for it, or the one before could not be written.
        """
        step = int(state.step)
        if step == self.latest_step:
            return
        with self._written():
            self._manager.wait_until_finished()
            self.check_room(state)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state._asdict()), data=_DataSave(data, after)
                ),
            )

    def check_room(self, state: TrainState) -> None:
        """CheckpointError where the disk has not the room for one more; buckets always have."""
        if "://" in str(self.directory):
            return
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / _MIB
        free = shutil.disk_usage(self.directory).free / _MIB
        if free < needed:
            raise CheckpointError(
                f"{self.directory}: a checkpoint takes {needed:.1f} MiB, and {free:.1f} are free: "
                "make room, and give the same command again"
            )

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint that is whole, with the shapes, dtypes and shardings of `like`.

        Newer ones that some process cannot read are named in a warning and set aside as
        `unreadable-STEP`, so that their steps can be saved again. All processes go on from the
        same step.

        Raises:
          CheckpointError: there are checkpoints, and none of them can be read.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        steps = sorted(self._manager.all_steps(), reverse=True)
        failures: list[str] = []
        for i, step in enumerate(steps):
            failure, found = "", None
            try:
                self._check_shapes(step, abstract["trainable"])
                found = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(abstract), data=_DataRestore()
                    ),
                )
            except Exception as error:  # whatever orbax or tensorstore meet in a damaged file
                failure = str(error).splitlines()[0][:120]
            if _anywhere(bool(failure)):
                failures.append(f"{step}: {failure or 'another process cannot read it'}")
                continue
            for failure in failures:
                logging.warning(
                    "%s: checkpoint %s; going on from step %d", self.directory, failure, step
                )
            self._set_aside(steps[:i])
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
                a, b = ("missing" if shape is None else shape for shape in (a, b))
                raise CheckpointError(f"{path} is {a} there and {b} here")

    def _set_aside(self, steps: list[int]) -> None:
        """Out of the way of what is saved next; what another try might read is not deleted."""
        if not steps:
            return
        if jax.process_index() == 0:
            for step in steps:
                place = self.directory / f"{_ASIDE}-{step}"
                place.rmtree(missing_ok=True)  # of an earlier try
                (self.directory / str(step)).rename(place)
        _anywhere(False)  # all wait for process 0
        self._manager.reload()

    def wait(self) -> None:
        """Until every save is on disk; CheckpointError where one could not be written."""
        with self._written():
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
        """Waits, then ends the background threads; CheckpointError as `wait`."""
        self.wait()
        self._manager.close()

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Around what tells of a save: what tensorstore met becomes a CheckpointError."""
        try:
            yield
        except ValueError as error:
            if "Error writing" not in str(error):
                raise
            system = _SYSTEM_ERROR.search(str(error))
            raise CheckpointError(
                f"{self.directory}: a checkpoint could not be written "
                f"({system[1] if system else ' '.join(str(error).split())[:120]}): mend that, and "
                "give the same command again"
            ) from error


def _anywhere(here: bool) -> bool:
    """Whether it is so in any process; all must ask."""
    if jax.process_count() == 1:
        return here
    return bool(multihost_utils.process_allgather(np.array(here)).any())
