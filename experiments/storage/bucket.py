"""Folders of Cloud Storage that commands are given: `gs://BUCKET/FOLDER`.

Read and written with gcsfs. So are orbax's and TFDS's small files, where etils would otherwise take
TensorFlow's own client (`experiments/__init__.py`): there is one login, and what runs is what the
tests run. Of arrays, orbax's tensorstore has a client of its own, with the same login.
"""

import contextlib
import importlib.util
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

from experiments.cli import UserError

_ADDRESS = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]/.*[^/]/*")
_NO_LOGIN = re.compile(r"\b401\b|Anonymous caller|invalid_grant|[Rr]eauthentication")

Tick = Callable[[int], object]


def is_address(value: str) -> bool:
    """Whether it is no path of this machine."""
    return "://" in value


def check(name: str, value: str) -> str:
    """The address that option `name` was given, without slashes at its end; asks no network.

    UserError where it is another store's, names no folder, or the clients are not installed.
    """
    if not _ADDRESS.fullmatch(value):
        raise UserError(f"{name}={value}: give gs://BUCKET/FOLDER, or a path of this machine")
    for module, package in (("gcsfs", "gcsfs"), ("google.cloud.storage", "google-cloud-storage")):
        if not _is_installed(module):
            raise UserError(
                f"{name}={value}: {package} is not installed: in the repository, "
                "pip install -e '.[gcs]'"
            )
    return value.rstrip("/")


def connect(address: str) -> tuple[Any, str]:
    """fsspec's file system, which remembers no listing, and the address's path there."""
    import fsspec  # not above: it comes with the extra

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # prints what it raises, too
    return fsspec.core.url_to_fs(address, use_listings_cache=False)


@contextlib.contextmanager
def reached(address: str) -> Iterator[None]:
    """Around what asks the store: what its clients raise becomes a UserError, what to do in it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # gcsfs's, aiohttp's, google-auth's, requests'
        raise UserError(f"{address}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Why a store's client failed, and what to do, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if _NO_LOGIN.search(text):
        return (
            f"no login that Cloud Storage takes ({text[:120]}): gcloud auth application-default "
            "login, or on Google's machines a service account"
        )
    if "Forbidden" in text:
        return (
            f"not allowed ({text[:160]}): give the account roles/storage.objectUser and "
            "roles/storage.bucketViewer on the bucket"
        )
    if isinstance(error, FileNotFoundError):
        return f"there is no such bucket or file ({text[:160]}): make the bucket first"
    return text[:300]


def counted(tick: Tick) -> Any:
    """fsspec's callback for the copy of one file: `tick` is called with each number of bytes more.

    It is a negative one where a copy begins anew.
    """
    import fsspec

    before = 0

    def moved(size: int | None, value: int) -> None:
        nonlocal before
        tick(value - before)
        before = value

    return fsspec.Callback(hooks={"bytes": moved})


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package above it
        return False
