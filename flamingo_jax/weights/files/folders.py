"""A folder of weights that is there whole or not at all."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator


@contextlib.contextmanager
def whole(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new folder to write into, which gets the name `directory` where the block ends well.

    Until then what had that name stays, at the last as `NAME.replaced`. Where the block does not
    end well, nothing is left of what it wrote.
    """
    partial = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:  # Ctrl-C too
        shutil.rmtree(partial, ignore_errors=True)
        raise
    replaced = directory.with_name(f"{directory.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if directory.exists():
        directory.rename(replaced)
    partial.rename(directory)
    shutil.rmtree(replaced, ignore_errors=True)
