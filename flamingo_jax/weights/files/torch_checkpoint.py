"""Reads the tensors of a torch checkpoint, without torch and without running anything in it.

Both of torch's containers are read: the old one (up to 1.5: five pickles one after another, then
the raw storages) and the zip archive (since 1.6). Not part of the paper.
"""

import io
import math
import pathlib
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files.restricted_pickle import (
    Malformed,
    StorageReference,
    TensorReference,
    unpickle,
)

_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the old container
_PROTOCOL = 1001  # its second
_MAX_NUMBERS = 2**46
_ZIP_MAGIC = b"PK\x03\x04"
_NESTED = "model_state_dict"  # beside the optimizer's, in training checkpoints
_ZIP_HEADER = struct.Struct("<4s5H3I2H")  # before an entry; its last two: sizes of name and extra
_READ_AT_ONCE = 1 << 22  # bytes
_ZIP_ERRORS = (KeyError, EOFError, ValueError, NotImplementedError, RuntimeError, struct.error)


Keep = Callable[[str], bool]


def _everything(name: str) -> bool:
    return True


def load_state_dict(path: str | pathlib.Path, keep: Keep = _everything) -> dict[str, np.ndarray]:
    """The tensors of a torch state dict by name, in the file's order; read-only arrays.

    Of a zip archive, which torch writes today, only the tensors whose names `keep` wants are
    looked at, as views into the file that are read when they are used, and of a training checkpoint
    only those of the model, `model_state_dict`.

    Raises BadWeightsFile when the file is not a torch checkpoint, is cut short, contradicts itself,
    asks for anything but tensors to be built, or is not a flat mapping of names to tensors.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == _ZIP_MAGIC
            file.seek(0)
            return _read_zip(file, keep) if is_zip else _read_old(file, keep)
    except OSError as error:
        raise BadWeightsFile(f"{path}: cannot be read ({error.strerror or error})") from error
    except Malformed as error:
        raise BadWeightsFile(f"{path}: {error}") from error


def _read_old(file: BinaryIO, keep: Keep) -> dict[str, np.ndarray]:
    is_pickle = file.read(1) == b"\x80"
    file.seek(0)
    if not is_pickle or unpickle(file) != _MAGIC:
        raise Malformed("not a torch checkpoint (no torch magic number): fetch the file again")
    protocol, system = unpickle(file), unpickle(file)
    if protocol != _PROTOCOL:
        raise Malformed(f"not torch container protocol {_PROTOCOL}, the only one that can be read")
    if not (isinstance(system, dict) and system.get("little_endian") is True):
        raise Malformed("written on a big-endian machine; only little-endian files can be read")
    state = unpickle(file)
    keys = unpickle(file)
    declared = _declared_storages(state, file)
    is_list = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not is_list or sorted(keys) != sorted(declared):
        raise Malformed("its list of storages is not the one its tensors name")
    buffers = {}
    for key in keys:
        storage = declared[key]
        size = int.from_bytes(_read_exactly(file, 8, f"the length of storage {key!r}"), "little")
        if size != storage.size:
            raise Malformed(f"storage {key!r} holds {size} numbers where {storage.size} are named")
        data = _read_exactly(file, size * storage.dtype.itemsize, f"storage {key!r}")
        buffers[key] = np.frombuffer(data, storage.dtype)
    return _arrays({name: tensor for name, tensor in state.items() if keep(name)}, buffers)


def _read_zip(file: BinaryIO, keep: Keep) -> dict[str, np.ndarray]:
    try:
        archive = zipfile.ZipFile(file)
        stems = [n[: -len("data.pkl")] for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(stems) != 1:
            raise Malformed("a zip archive, but not a torch checkpoint (no single data.pkl)")
        stem = stems[0]
        order = f"{stem}byteorder"
        if order in archive.namelist() and _stored(archive, order) != b"little":
            raise Malformed("written on a big-endian machine; only little-endian can be read")
        state = unpickle(io.BytesIO(_stored(archive, f"{stem}data.pkl")))
        if isinstance(state, dict) and isinstance(state.get(_NESTED), dict):
            state = state[_NESTED]
        _declared_storages(state, file)  # of all, for a file that was cut short
        state = {name: tensor for name, tensor in state.items() if keep(name)}
        whole = np.memmap(file, np.uint8, "r")
        buffers = {}
        for key, storage in _declared_storages(state, file).items():
            data = _mapped(whole, archive, f"{stem}data/{key}")
            if len(data) != storage.size * storage.dtype.itemsize:
                raise Malformed(
                    f"storage {key!r} is {len(data)} bytes where {storage.size} numbers of "
                    f"{storage.dtype} are named"
                )
            buffers[key] = data.view(storage.dtype)
    except (zipfile.BadZipFile, *_ZIP_ERRORS) as error:
        raise Malformed(f"damaged zip archive ({error}): fetch the file again") from error
    return _arrays(state, buffers)


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    return archive.read(_not_compressed(archive, name))


def _mapped(whole: np.ndarray, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """u8 view of an entry where it lies in the file, after its checksum was found right."""
    info = _not_compressed(archive, name)
    with archive.open(info) as entry:
        while entry.read(_READ_AT_ONCE):
            pass  # at the end zipfile compares
    header = whole[info.header_offset : info.header_offset + _ZIP_HEADER.size].tobytes()
    *_, name_size, extra_size = _ZIP_HEADER.unpack(header)
    start = info.header_offset + _ZIP_HEADER.size + name_size + extra_size
    return whole[start : start + info.file_size]


def _not_compressed(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses; a bomb would
        raise Malformed(f"{name} inside it is compressed, which torch does not do")
    return info


def _read_exactly(file: BinaryIO, count: int, what: str) -> bytes:
    here = file.tell()
    left = _size(file) - here
    if left < count:  # before reading: a lying length must not allocate
        raise Malformed(f"cut short: {what} needs {count} bytes, {left} are left; fetch it again")
    file.seek(here)
    return file.read(count)


def _size(file: BinaryIO) -> int:
    return file.seek(0, io.SEEK_END)


def _declared_storages(state: Any, file: BinaryIO) -> dict[str, StorageReference]:
    """Every storage the tensors name, by key; together they must fit into `file`, left in place."""
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise Malformed(f"holds a {type(state).__name__}, not a state dict of names and tensors")
    storages: dict[str, StorageReference] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, TensorReference):
            raise Malformed(f"entry {name!r} is a {type(tensor).__name__}, not a tensor")
        if storages.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise Malformed(f"storage {tensor.storage.key!r} is declared twice, differently")
    here = file.tell()
    need, have = sum(s.size * s.dtype.itemsize for s in storages.values()), _size(file)
    file.seek(here)
    if need > have:
        raise Malformed(f"cut short: its tensors need {need} bytes, it has {have}; fetch it again")
    return storages


def _arrays(
    state: dict[str, TensorReference], buffers: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Views on the storages; tensors that share one go on sharing it."""
    out = {}
    for name, (storage, offset, shape, strides) in state.items():
        count = math.prod(shape)
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        # `count` too: strides of 0 would let a small file name an endless tensor.
        if count and (last >= storage.size or count > storage.size):
            raise Malformed(f"tensor {name!r} reaches beyond its storage of {storage.size}")
        if (
            math.prod(n for n in shape if n) >= _MAX_NUMBERS
        ):  # of an empty tensor: (0, 2**40, 2**40)
            raise Malformed(f"tensor {name!r} has an impossible shape")
        if not count:
            out[name] = np.zeros(shape, storage.dtype)
            continue
        out[name] = np.lib.stride_tricks.as_strided(
            buffers[storage.key][offset:],
            shape,
            tuple(s * storage.dtype.itemsize for s in strides),
            writeable=False,
        )
    return out
