"""Several processes as one run: they start together, agree, and end together.

`launch.local` names each process to itself in three variables; on a TPU slice JAX finds out by
itself, and a TPU host that stands alone, as a notebook's does, joins nobody. Every process then
runs the same program on the same arrays, each with its own devices and its own rows of the batch;
process 0 alone writes metrics, model and report.

Where one dies, the others must not wait for it. JAX's coordination service misses its heartbeat and
ends them; and a process that fails ends at once, without the barrier at which JAX would have it
wait minutes for the others.
"""

import contextlib
import fcntl
import glob
import importlib.util
import json
import os
import pathlib
import secrets
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.experimental.compilation_cache import compilation_cache

Tree = Any
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
INTERRUPTED = 128 + signal.SIGINT  # the status of a process that Ctrl-C ends
_HEARTBEAT_TIMEOUT_S = 30  # a minute is promised; JAX's own 100 are too many
_SHUTDOWN_TIMEOUT_S = 45
_TPU_DEVICES = ("/dev/accel*", "/dev/vfio/[0-9]*")
_GATHER_BYTES = 1024  # lengths are rounded up to this, so that few of them are compiled
_LOCK_FILE = ".lock"


def start() -> None:
    """Joins the other processes of the run, where there are any; before anything else of JAX.

    Raises:
      ValueError: the launcher's variables are incomplete or no numbers.
    """
    given = [os.environ.get(name) for name in VARIABLES]
    timeouts = {
        "heartbeat_timeout_seconds": _HEARTBEAT_TIMEOUT_S,
        "shutdown_timeout_seconds": _SHUTDOWN_TIMEOUT_S,
    }
    if any(given):
        if not all(given) or not all(text.isdigit() for text in given[1:]):
            found = dict(zip(VARIABLES, given, strict=True))
            raise ValueError(f"{found}: set all three, as launch.local does, or none")
        address, count, index = given
        jax.distributed.initialize(address, int(count), int(index), **timeouts)
    elif on_tpu() and not is_only_tpu_host():
        jax.distributed.initialize(**timeouts)
    if jax.distributed.is_initialized():
        keep_programs_together()


def on_tpu() -> bool:
    """Whether this host has TPU chips, libtpu, and leave to use them; asks no device."""
    allowed = os.environ.get("JAX_PLATFORMS", "") in ("", "tpu", "tpu,cpu")
    chips = any(glob.glob(pattern) for pattern in _TPU_DEVICES)
    return allowed and chips and importlib.util.find_spec("libtpu") is not None


def is_only_tpu_host() -> bool:
    """Whether a TPU host's variables say that it has no others, as Colab's and Kaggle's do.

    There JAX would look for others for five minutes, and fail. Hosts that Cloud TPU rents out have
    none of these variables: JAX asks their metadata server.
    """
    if "MEGASCALE_COORDINATOR_ADDRESS" in os.environ:
        return False
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    return "," not in hosts if hosts else "TPU_SKIP_MDS_QUERY" in os.environ


def keep_no_programs() -> None:
    """Compiled programs are not kept from now on, also where JAX has compiled some already."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # else JAX goes by what it first found


def keep_programs_together() -> None:
    """Keeps no compiled programs where processes have folders of their own; all must call it.

    Process 0 alone writes them, so there nothing is gained. And on GPUs a run would stand still:
    XLA shares out the tuning of a program among the processes that compile it, so those without
    it would wait, for a day, for process 0, which has it already.
    """
    folder = jax.config.jax_compilation_cache_dir
    if jax.process_count() == 1 or not folder or "://" in folder:  # a bucket is everybody's
        return
    file = pathlib.Path(folder) / f".{gather(secrets.token_hex(8))[0]}"
    if is_first():
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    gather(None)  # process 0 has written it
    seen = gather(file.is_file())
    if is_first():
        file.unlink(missing_ok=True)
    if all(seen):
        return
    keep_no_programs()
    if is_first():
        print(
            f"compiled programs are not kept: {folder} is not the same folder for all processes, "
            "set JAX_COMPILATION_CACHE_DIR to one that is",
            file=sys.stderr,
        )


def is_first() -> bool:
    """Whether this is process 0, which writes what is written once."""
    return jax.process_index() == 0


def name() -> str:
    """What messages call this process."""
    return f"process {jax.process_index()} of {jax.process_count()}"


def gather(value: Any) -> list[Any]:
    """The JSON value of every process, by its number; all must call it."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.array([len(data)], np.int32)).ravel()
    padded = np.zeros(-(-lengths.max() // _GATHER_BYTES) * _GATHER_BYTES, np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:n].tobytes()) for row, n in zip(rows, lengths, strict=True)]


def check_shared(file: pathlib.Path) -> None:
    """Fails everywhere where not every process sees what process 0 has just written."""
    gather(None)  # process 0 has written it
    missing = [i for i, seen in enumerate(gather(file.is_file())) if not seen]
    if missing:
        raise OSError(
            f"{file} of process 0 is not seen by processes {missing}: give a workdir on a disk "
            "that all hosts share"
        )


def to_host(tree: Tree) -> Tree:
    """Whole arrays of a tree cut among devices, in process 0; all must call it.

    One leaf after the other, so that a device holds one whole leaf at a time. What lies on one
    device stays there.
    """
    alone = jax.process_count() == 1

    def one(leaf: jax.Array) -> jax.Array | np.ndarray | None:
        if alone:
            return leaf if len(leaf.sharding.device_set) == 1 else np.asarray(leaf)
        whole = multihost_utils.process_allgather(leaf, tiled=True)
        return whole if is_first() else None

    return jax.tree.map(one, tree)


@contextlib.contextmanager
def one_at_a_time(folder: pathlib.Path) -> Iterator[None]:
    """Lets one process of this machine at a time build what is missing in `folder`.

    The others wait and then find it there. A process that dies gives the lock back.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK_FILE).open("w")
    except OSError:  # nothing can be built where nothing can be written
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that works in {folder}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # of file systems without locks
            print(f"{folder} cannot be locked ({error}): build data beforehand", file=sys.stderr)
        yield


class StopRequest:
    """Set by SIGTERM, to any of the processes; seen by all of them after the same step.

    In a run of one process that JAX has not joined to others (as it does on TPU) also by Ctrl-C;
    the second one ends it at once.
    """

    def __init__(self):
        self._requested: signal.Signals | None = None
        if not jax.distributed.is_initialized():  # else JAX has a handler of its own
            signal.signal(signal.SIGTERM, self._request)
            signal.signal(signal.SIGINT, self._request)

    def after(self, step: int) -> signal.Signals | None:
        """The signal with which the run ends after this step; to be asked once after each."""
        if jax.distributed.is_initialized():
            stops = multihost_utils.reached_preemption_sync_point(step)
            return signal.SIGTERM if stops else None
        return self._requested

    def _request(self, number: int, _: Any) -> None:
        self._requested = signal.Signals(number)
        if number == signal.SIGINT:
            print("Ctrl-C: this step is saved first; press again to end at once", file=sys.stderr)
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def release(self) -> None:
        """Both end the process again: training is over, and everything is saved."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def part() -> bool:
    """Ends the common part of a run that went well; True in process 0, which goes on alone."""
    first = is_first()
    if jax.process_count() > 1:
        jax.distributed.shutdown()  # waits for all, so none is missed
    return first


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Around a whole command: a process that fails ends at once, so that the others notice."""
    try:
        yield
    except BaseException as error:
        if not jax.distributed.is_initialized():
            raise
        status = _say_why(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _say_why(error: BaseException) -> int:
    """Prints what ended this process, and returns the status to end with."""
    if isinstance(error, SystemExit):  # has been said
        return error.code if isinstance(error.code, int) else 1
    who = name()
    if isinstance(error, KeyboardInterrupt):
        print(f"{who} is interrupted", file=sys.stderr)
        return INTERRUPTED
    if _is_loss_of_another(error):
        print(f"error: {who} has lost another one: {' '.join(str(error).split())}", file=sys.stderr)
    else:
        traceback.print_exc()
    print(f"{who} ends, and the others with it: give the same command again", file=sys.stderr)
    return 1


def _is_loss_of_another(error: BaseException) -> bool:
    """Whether a collective failed because the process at its other end has gone."""
    text = str(error)
    signs = ("Gloo", "coordination service", "heartbeat", "remote process exited")  # that is NCCL's
    return any(sign in text for sign in signs)
