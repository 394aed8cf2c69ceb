"""What launchers share: a wrong argument is one line and status 2; commands as one types them.

Nothing of ours, no jax: a launcher runs on the laptop from which a pod is rented.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

USAGE = 2
MAX_PORT = 65_535


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line; its description is shown as written."""

    def __init__(self, **kwargs):
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs
        )

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong and ends with status 2."""
        print(f"error: {message} (see --help)", file=sys.stderr)
        sys.exit(USAGE)


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(a launcher's own arguments, the command behind the first `--`)."""
    argv = list(argv)
    if "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def positive(text: str) -> int:
    """A whole number of 1 or more, as a type of an argument."""
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return value


def count(text: str) -> int:
    """A whole number of 0 or more, as a type of an argument."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 0 or more")
    return int(text)


def port(text: str) -> int:
    """The number of a port, as a type of an argument."""
    value = _whole(text)
    if not 1 <= value <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {MAX_PORT}")
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def typed(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """The command with its variables, quoted so that a shell takes it as it is."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items()]
    return " ".join([*variables, shlex.join(command)])
