"""What a launcher would type, one step after the other: shown, or run until one fails."""

import dataclasses
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Step:
    """One command, and the text that it reads on its standard input, if any."""

    words: Sequence[str]
    reads: str | None = None


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
