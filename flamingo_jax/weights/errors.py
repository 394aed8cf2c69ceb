"""The one error every reader of published weights raises."""

import contextlib
import pathlib
from collections.abc import Iterator


class BadWeightsFile(ValueError):
    """A weights file that cannot be used; the message says which, why, and what to do."""


@contextlib.contextmanager
def naming(path: pathlib.Path | str) -> Iterator[None]:
    """Puts a file or folder before what is said by code that was given its tensors alone."""
    try:
        yield
    except BadWeightsFile as error:
        raise BadWeightsFile(f"{path}: {error}") from error
