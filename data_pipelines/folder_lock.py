"""A folder that one process at a time works in, on one machine."""

import fcntl
import os


def take(folder: str | os.PathLike) -> int:
    """A file descriptor that keeps the folder until it is closed, or the process ends, however.

    BlockingIOError where another process has it. A disk that knows no such locks keeps out nobody.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        pass
    return descriptor
