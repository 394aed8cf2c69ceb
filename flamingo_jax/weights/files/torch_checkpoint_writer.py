"""Writes a torch checkpoint without torch: the zip archive that `torch.load` reads.

A state dict of names and tensors, each tensor a storage of its own, which lies in the archive as it
lies in memory. `torch_checkpoint` reads the same.
"""

import pathlib
import pickle
import zipfile
from collections.abc import Callable, Iterable

import ml_dtypes
import numpy as np

_STORAGES = {
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
}
_STEM = "checkpoint"


def save_state_dict(
    path: pathlib.Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    tick: Callable[[int], object] = lambda num_bytes: None,
) -> int:
    """Writes the tensors, one after the other, and returns how many there were.

    `tick` is called with the number of bytes that were written just now.

    Raises TypeError for a tensor that is not of float64, float32, float16 or bfloat16.
    """
    items = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key, (name, tensor) in enumerate(tensors):
            items.append(_value(name) + _tensor(str(key), tensor))
            with archive.open(zipfile.ZipInfo(f"{_STEM}/data/{key}"), "w", force_zip64=True) as f:
                f.write(np.asarray(tensor, order="C").reshape(-1).view(np.uint8).data)
            tick(tensor.nbytes)
        state = b"\x80\x02" + _name("collections", "OrderedDict") + b")R("
        for name, content in {
            "data.pkl": state + b"".join(items) + b"u.",
            "byteorder": b"little",
            "version": b"3\n",
        }.items():
            archive.writestr(zipfile.ZipInfo(f"{_STEM}/{name}"), content)
    return len(items)


def _name(module: str, name: str) -> bytes:
    """The opcode that looks up a class or a function, when the file is read."""
    return f"c{module}\n{name}\n".encode()


def _value(value: object) -> bytes:
    """A text, a number or a tuple of them, without the pickle's head and end."""
    return pickle.dumps(value, 2)[2:-1]


def _tensor(key: str, tensor: np.ndarray) -> bytes:
    """The opcodes that torch writes for a tensor in C's order."""
    if tensor.dtype not in _STORAGES:
        raise TypeError(f"a tensor of {tensor.dtype}: want one of {[*map(str, _STORAGES)]}")
    strides, step = [], 1
    for size in reversed(tensor.shape):
        strides.insert(0, step)
        step *= size
    storage = b"(" + _value("storage") + _name("torch", _STORAGES[tensor.dtype])
    storage += _value(key) + _value("cpu") + _value(tensor.size) + b"tQ"
    arguments = _value(0) + _value(tensor.shape) + _value(tuple(strides)) + b"\x89"
    arguments += _name("collections", "OrderedDict") + b")R"
    return _name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + arguments + b"tR"
