"""The trained parameters of one checkpoint alone, read by one process for itself.

`Checkpoints` restores a run: all processes together, optimizer state too. This is for whoever looks
at the model that a run has come to, on any machine.
"""

from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from flamingo_jax.train.checkpoint import CheckpointError

Tree = Any
_TRAINED = "trainable"  # of a TrainState


def identity(checkpoint: epath.Path) -> str:
    """What no other save has, of the same step either.

    CheckpointError where there is no whole checkpoint; which there are.
    """
    if checkpoint.is_dir() and ocp.utils.is_checkpoint_finalized(checkpoint):
        return (checkpoint / "_CHECKPOINT_METADATA").read_text()  # when it was saved
    beside = checkpoint.parent.iterdir() if checkpoint.parent.is_dir() else ()
    steps = sorted(int(path.name) for path in beside if path.name.isdigit())
    others = f"but of {steps}" if steps else "nor of another"
    raise CheckpointError(f"no checkpoint of that step is there, {others}")


def read(checkpoint: epath.Path) -> Tree:
    """Numpy arrays in the dtypes that they were saved in; CheckpointError where it is damaged."""
    handler = ocp.PyTreeCheckpointHandler()
    try:
        saved = handler.metadata(checkpoint / "state").tree[_TRAINED]
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        args = ocp.args.PyTreeRestore(
            item={_TRAINED: saved}, restore_args={_TRAINED: as_numpy}, partial_restore=True
        )
        return handler.restore(checkpoint / "state", args=args)[_TRAINED]
    except Exception as error:  # whatever orbax or tensorstore meet in a damaged file
        raise CheckpointError(
            f"it cannot be read ({str(error).splitlines()[0][:120]}): name another step"
        ) from error
