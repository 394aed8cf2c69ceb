"""What a launcher would type, one step after the other: shown, or run until one fails."""

import argparse
import dataclasses
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from launch import arguments


@dataclasses.dataclass(frozen=True)
class Step:
    """One command, and the text that it reads on its standard input, if any."""

    words: Sequence[str]
    reads: str | None = None


def main(
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
    actions: Mapping[str, Callable[[argparse.Namespace], Sequence[Step]]],
    complaint: Callable[[argparse.Namespace], str | None],
    install: Mapping[str, str],
) -> int:
    """A launcher's command: shows or runs what its action would type; its status.

    `complaint` says what is wrong with the arguments together; `install` where programs come from.
    """
    own, command = arguments.split(argv)
    options = parser.parse_args(own)
    options.command = command
    if wrong := complaint(options):
        parser.error(wrong)
    steps = actions[options.action](options)
    if options.dry_run:
        show(steps)
        return 0
    return run(steps, install, parser.error)


def show(steps: Sequence[Step]) -> None:
    """What `--dry_run` prints: each step's command, or the text where it reads one."""
    for step in steps:
        print(shlex.join(step.words) if step.reads is None else step.reads.rstrip("\n"))


def run(steps: Sequence[Step], install: Mapping[str, str], error: Callable[[str], object]) -> int:
    """The status of the first step that fails, or 0; `install` says where programs come from."""
    for step in steps:
        print(shlex.join(step.words), file=sys.stderr, flush=True)
        program = step.words[0]
        try:
            code = subprocess.run(step.words, input=step.reads, text=True, check=False).returncode
        except OSError as why:
            error(f"{program} cannot be started ({why.strerror}): see {install[program]}")
        except KeyboardInterrupt:  # how one ends a look at a log
            return 128 + signal.SIGINT
        if code:
            return code
    return 0
