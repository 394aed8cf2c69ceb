r"""Starts one command several times on this machine, as the processes of one run.

    python -m launch.local --num_processes=4 -- python -m experiments.train \
        --config=experiments/configs/flamingo.py:micro --workdir=runs/micro

The processes find each other over the loopback interface and compute on CPU, their collectives with
gloo: what a run on many hosts does, without the hosts. Every line of output is prefixed with the
number of the process that wrote it. SIGTERM and SIGINT are passed on to all of them. Where one
fails, the others are given a few seconds to say so themselves, and are then ended too.
"""

import dataclasses
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

from launch import arguments

GRACE_S = 20.0  # between one process's failure and the end of those that are still there
_KILLED = 128  # a shell's status of a process that a signal ended is this and the signal's number


def main(argv: Sequence[str]) -> int:
    """Runs the command, and returns the status of the process that failed first, or 0."""
    own, command = arguments.split(argv)
    parser = arguments.Parser(prog="python -m launch.local", description=__doc__)
    parser.add_argument("--num_processes", type=arguments.positive, required=True)
    parser.add_argument("--port", type=arguments.port, help="of process 0; a free one by default")
    parser.add_argument("--dry_run", action="store_true", help="print the commands, start nothing")
    options = parser.parse_args(own)
    if not command:
        parser.error("no command: write it behind --, as in -- python -m experiments.train ...")
    address = f"127.0.0.1:{options.port or free_port()}"
    variables = [
        process_variables(address, options.num_processes, index)
        for index in range(options.num_processes)
    ]
    if options.dry_run:
        for each in variables:
            print(arguments.typed(command, each))
        return 0
    if options.port and (why := taken(options.port)):
        parser.error(f"--port={options.port}: {why}, give another or none, which takes a free one")
    return Group(command, variables).run()


def process_variables(address: str, num_processes: int, index: int) -> dict[str, str]:
    """What tells a process who it is; `experiments.training.processes` reads it."""
    return {
        "JAX_PLATFORMS": "cpu",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": str(num_processes),
        "JAX_PROCESS_ID": str(index),
    }


def free_port() -> int:
    """A port of the loopback interface that nobody listens at now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def taken(port: int) -> str | None:
    """Why a port of the loopback interface cannot be listened at now; None where it can."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a run that has ended is no reason
        try:
            s.bind(("127.0.0.1", port))
        except OSError as error:
            return os.strerror(error.errno)
    return None


@dataclasses.dataclass(frozen=True)
class _Ended:
    index: int
    status: int  # as a shell gives it


class Group:
    """One command as several processes, which end together."""

    def __init__(self, command: Sequence[str], variables: Sequence[Mapping[str, str]]):
        self._command, self._variables = list(command), variables
        self._processes: list[subprocess.Popen] = []
        self._threads: list[threading.Thread] = []
        self._ended: queue.Queue[_Ended] = queue.Queue()
        self._lines = threading.Lock()
        self._signalled = False  # then it is known why they end

    def run(self) -> int:
        """Until the last process has ended; 0, or the status of the first that failed."""
        before = {s: signal.signal(s, self._pass_on) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            for index, variables in enumerate(self._variables):
                self._start(index, variables)
            return self._wait()
        except OSError as error:
            print(
                f"error: {self._command[0]} cannot be started ({error.strerror}): write a program "
                "behind --",
                file=sys.stderr,
            )
            return arguments.USAGE
        finally:
            self._end_all(signal.SIGKILL)
            for thread in self._threads:
                thread.join()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self, index: int, variables: Mapping[str, str]) -> None:
        process = subprocess.Popen(
            self._command,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # the terminal's Ctrl-C comes to us alone, and is passed on
        )
        self._processes.append(process)
        self._in_background(self._copy, index, process.stdout, sys.stdout)
        self._in_background(self._copy, index, process.stderr, sys.stderr)
        self._in_background(self._await, index, process)

    def _in_background(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _copy(self, index: int, source: IO[bytes], to: IO[str]) -> None:
        for line in source:
            text = line.decode(errors="replace").rstrip()
            with self._lines:
                for piece in filter(None, text.split("\r")):  # a progress bar's, line by line
                    print(f"[{index}] {piece}", file=to, flush=True)

    def _await(self, index: int, process: subprocess.Popen) -> None:
        code = process.wait()
        self._ended.put(_Ended(index, _KILLED - code if code < 0 else code))

    def _wait(self) -> int:
        first: _Ended | None = None
        until = 0.0
        for left in reversed(range(len(self._processes))):
            try:
                wait_s = max(0.0, until - time.monotonic()) if first else None
                ended = self._ended.get(timeout=wait_s)
            except queue.Empty:
                self._say(f"{left + 1} still there after {GRACE_S:.0f} s: killed")
                return first.status
            if ended.status and not first:
                first, until = ended, time.monotonic() + GRACE_S
                if left and not self._signalled:
                    status = describe(ended.status)
                    self._say(f"process {ended.index} ended with {status}: the others end too")
        return first.status if first else 0

    def _pass_on(self, number: int, _frame: object) -> None:
        self._signalled = True
        self._end_all(number)

    def _end_all(self, number: int) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def _say(self, text: str) -> None:
        with self._lines:
            print(f"launch.local: {text}", file=sys.stderr, flush=True)


def describe(status: int) -> str:
    """The status in words, with the signal's name where there was one."""
    try:
        return f"status {status} ({signal.Signals(status - _KILLED).name})"
    except ValueError:
        return f"status {status}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
