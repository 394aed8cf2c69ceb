"""Pictures from `data:` addresses and from a folder, out of which no address leads."""

import base64
import binascii
import pathlib
from urllib.parse import unquote, unquote_to_bytes

from data_pipelines.building.page_images import MAX_IMAGE_BYTES
from data_pipelines.sources.media_files import mirror_name
from flamingo_jax.images import BadMedia


def data_uri(url: str) -> bytes:
    """The bytes in a `data:` address; BadMedia `bad_data_uri`."""
    head, comma, body = url.partition(",")
    if not comma:
        raise BadMedia("bad_data_uri", "data: address without a comma")
    if len(body) > 2 * MAX_IMAGE_BYTES:
        raise BadMedia("too_large", f"data: address of {len(body)} characters")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode("".join(unquote(body).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadMedia("bad_data_uri", f"data: address is no base64: {error}") from error


def from_folder(url: str, folder: str) -> bytes:
    """The picture of an absolute address at its `mirror_name` in `folder`; as `read_inside`."""
    name = mirror_name(url)
    if not name:
        raise BadMedia("not_found", f"{url[:200]} is no absolute address")
    return read_inside(pathlib.Path(folder, name), pathlib.Path(folder))


def read_inside(path: pathlib.Path, folder: pathlib.Path) -> bytes:
    """A regular file in `folder` or below, links followed.

    Raises BadMedia: `not_found`, `outside_folder`, `too_large`.
    """
    try:
        real, root = path.resolve(), folder.resolve()
        if not real.is_relative_to(root):
            raise BadMedia("outside_folder", f"{path} lies outside {folder}")
        if not real.is_file():
            raise BadMedia("not_found", f"{path} is not there")
        if real.stat().st_size > MAX_IMAGE_BYTES:
            raise BadMedia("too_large", f"{path} has {real.stat().st_size} bytes")
        return real.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, a zero byte, a loop
        raise BadMedia("not_found", f"{path}: {error}") from error
