"""What every command shares: flags, and one line and exit status 2 for what a user can mend."""

import contextlib
import pathlib
import re
import sys
from collections.abc import Callable, Iterator

import jax
from absl import app, flags, logging

from data_pipelines.errors import TooManyBadRecords
from data_pipelines.fetch import FetchError
from experiments.training import processes
from flamingo_jax.cache import cache_dir
from flamingo_jax.images import BadMedia
from flamingo_jax.model_directory import ModelDirectoryError
from flamingo_jax.prompts import PromptError
from flamingo_jax.train.checkpoint import CheckpointError
from flamingo_jax.weights.errors import BadWeightsFile

USAGE = 2
_UNREADABLE_RECIPE = re.compile(
    r"earlier failure to load:.*\[Errno \d+\] ([^:]+): '(.*)'", re.DOTALL
)
_LOOKED_UP = re.compile(r"Attempting to lookup: (\S+)")


class UserError(Exception):
    """What is wrong, where, and how to mend it, in one line."""


MENDABLE = (  # what a user can mend
    UserError,
    FetchError,
    TooManyBadRecords,
    BadMedia,
    BadWeightsFile,
    CheckpointError,
    ModelDirectoryError,
    PromptError,
    OSError,
)


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags, runs `main`, and exits with its status."""
    logging.set_verbosity(logging.WARNING)  # orbax and TFDS tell every file they touch
    use_compilation_cache()
    app.run(lambda _: _guarded(main), flags_parser=_parse)


def use_compilation_cache() -> None:
    """Keeps compiled programs in the cache folder, so that the same command starts sooner.

    JAX's own variables come first: `JAX_COMPILATION_CACHE_DIR` for another place,
    `JAX_ENABLE_COMPILATION_CACHE=false` for none.
    """
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))


@contextlib.contextmanager
def user_input() -> Iterator[None]:
    """Around code that only reads what a user wrote: a ValueError there is the user's to mend."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UserError(_one_line(error)) from error


def local_path(name: str, value: str) -> pathlib.Path:
    """The path that option `name` was given; UserError for none, or for the address of a bucket.

    In silence the first, as of a shell variable that is not set, would be the current folder, and
    `gs://bucket/run` a folder `gs:` in it.
    """
    if not value:
        raise UserError(f"{name} is empty: give a folder")
    if "://" in value:
        raise UserError(
            f"{name}={value}: mount the bucket (with gcsfuse, say) or copy it, and give the path"
        )
    return pathlib.Path(value)


def fail(message: str) -> None:
    """Prints one line and exits with status 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(USAGE)


def _guarded(main: Callable[[], int | None]) -> int | None:
    try:
        with processes.ending_together():
            try:
                return main()
            except MENDABLE as error:
                fail(_one_line(error))
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                if not (message := _out_of_memory(error)):
                    raise
                fail(message)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return processes.INTERRUPTED


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except SystemExit:  # absl has printed what --help asks for, and ends with status 1
        sys.exit(0)
    except flags.Error as error:
        fail(f"{_one_line(error)} (see --help)")
    except Exception as error:  # a config file runs while flags are parsed
        fail(f"--config: {_no_such_key(error) or _one_line(error)}")
    if len(rest) > 1:
        fail(f"unexpected argument {rest[1]!r}: every option starts with -- (see --help)")
    return rest


def _no_such_key(error: Exception) -> str | None:
    """For ml_collections' KeyError, bare or inside another, whose text is the key and one near."""
    inner = error if isinstance(error, KeyError) else next(iter(error.args), None)
    if not isinstance(inner, KeyError):
        return None
    key, _, hint = str(inner.args[0]).partition("\n")
    if found := _LOOKED_UP.search(key):  # below a number or a text
        key = repr(found[1])
    return f"the recipe has no key {key}. {hint or 'Its keys are in its file'}"


def _out_of_memory(error: Exception) -> str | None:
    """What to do where memory has run out, on the host or on a device."""
    _, exhausted, said = str(error).partition("RESOURCE_EXHAUSTED: ")
    if not exhausted and not isinstance(error, MemoryError):
        return None
    said = (said or str(error)).strip().partition("\n")[0]
    return (
        f"out of memory ({said}): use shorter or fewer prompts; in training smaller batches, more "
        "microbatches or more devices"
    )


def _one_line(error: BaseException) -> str:
    """The message; of one that quotes a whole traceback, as flags do, what was raised there."""
    if recipe := _UNREADABLE_RECIPE.search(str(error)):
        reason, path = recipe.groups()
        example = "experiments/configs/flamingo.py:demo in the repository's root"
        return f"recipe {path}: {reason}: write PATH.py:VARIANT, as {example}"
    if "has no attribute 'get_config'" in str(error):
        return "the file is no recipe, for it has no function get_config"
    lines = str(error).strip().splitlines()
    if any(line.startswith("Traceback") or ": Traceback" in line for line in lines):
        return lines[-1].partition(": ")[2] or lines[-1]
    return " ".join(" ".join(lines).split()) or type(error).__name__
