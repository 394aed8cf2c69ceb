"""A pickle of numpy arrays in dicts, as DeepMind's `F0_haiku.npz` is, whatever its name says.

Their own code opens it with dill, which runs what the file names. Here it is taken apart by
`restricted_pickle`: plain float arrays come out, and nothing else can. Read are the arrays of all
pickle protocols as numpy 1 and 2 write them, as dill does, and JAX's. Not part of the paper.
"""

import math
import pathlib
from typing import Any

import numpy as np

from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files.restricted_pickle import (
    MAX_RANK,
    Dialect,
    Global,
    Malformed,
    count,
    ordered_dict,
    unpickle,
)

_FLOATS = {"f2", "f4", "f8"}
_ARRAY = "numpy ndarray"


def load_tree(path: str | pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Module name to parameter name to array, in the file's order; read-only arrays.

    Raises BadWeightsFile where the file is no such pickle, is cut short, contradicts itself, or
    asks for anything but arrays of floats to be built.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            found = unpickle(file, _NUMPY)
        return {str(module): _arrays(module, row) for module, row in _items(found, "the file")}
    except OSError as error:
        raise BadWeightsFile(
            f"{path}: cannot be read ({error.strerror or error}): give the file itself"
        ) from error
    except Malformed as error:
        raise BadWeightsFile(f"{path}: {error}") from error


def _items(value: Any, what: str):
    if not isinstance(value, dict):
        raise Malformed(f"{what} holds a {type(value).__name__}, want modules and their parameters")
    return value.items()


def _arrays(module: Any, row: Any) -> dict[str, np.ndarray]:
    arrays = {}
    for name, value in _items(row, f"module {module!r}"):
        value = value.array if isinstance(value, _Array) else value
        if not isinstance(value, np.ndarray):
            raise Malformed(f"{module!r} has {name!r}, a {type(value).__name__}, not an array")
        arrays[str(name)] = value
    return arrays


class _DType:
    """A float type whose byte order the pickle tells later."""

    def __init__(self, code: Any, _align: Any = False, _copy: Any = True):
        if code not in _FLOATS:
            raise Malformed(f"an array of type {code!r:.40}, want one of {sorted(_FLOATS)}")
        self.dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder({"|": "="}.get(state[1], state[1]))


class _Array:
    """An array that the pickle fills later."""

    def __init__(self, cls: Any, _shape: Any, _code: Any):
        if cls != Global(_ARRAY):
            raise TypeError("an array of another class than numpy's")
        self.array: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        *_version, shape, dtype, in_fortrans_order, data = state
        self.array = _from_buffer(data, dtype, shape, "F" if in_fortrans_order else "C")


def _made_whole(function: Any, arguments: Any, state: Any, _besides: Any = None) -> _Array:
    """An array in one call, as dill and JAX write it: numpy's own two steps are its arguments."""
    if function not in map(Global, _of_both("multiarray _reconstruct")):
        raise TypeError("an array that numpy does not make")
    array = _Array(*arguments)
    array.set_state(state)
    return array


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """The array of these bytes, without copying them."""
    if not isinstance(dtype, _DType) or not isinstance(data, bytes | bytearray):
        raise TypeError("an array without a type, or without bytes")
    shape = tuple(map(count, shape))
    if len(shape) > MAX_RANK or len(data) != math.prod(shape) * dtype.dtype.itemsize:
        raise ValueError(f"{len(data)} bytes for an array of {list(shape)[:MAX_RANK]}")
    array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
    array.flags.writeable = False
    return array.astype(dtype.dtype.newbyteorder("="), copy=False)


def _scalar(dtype: Any, data: Any) -> np.ndarray:
    return _from_buffer(data, dtype, (), "C")


def _latin1(text: Any, encoding: Any) -> bytes:
    """Bytes as protocols before 3 write them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise TypeError("bytes that are no text in latin1")
    return text.encode("latin1")


def _of_both(name: str) -> tuple[str, str]:
    """In numpy's package as it was called before version 2, and since."""
    return f"numpy.core.{name}", f"numpy._core.{name}"


_NUMPY = Dialect(
    {
        "collections OrderedDict": ordered_dict,
        "_codecs encode": _latin1,
        "__builtin__ bytes": lambda: b"",  # where there are none
        "numpy dtype": _DType,
        **dict.fromkeys(_of_both("multiarray _reconstruct"), _Array),
        **dict.fromkeys(_of_both("multiarray scalar"), _scalar),
        **dict.fromkeys(_of_both("numeric _frombuffer"), _from_buffer),
        "dill._dill _create_array": _made_whole,
        "dill.dill _create_array": _made_whole,  # before 0.2.8
        "jax._src.array _reconstruct_array": _made_whole,
    },
    names={_ARRAY},
    opcodes={"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"},
    what="dicts of numpy's float arrays, numbers and strings",
)
