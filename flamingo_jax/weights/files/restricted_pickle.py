"""Takes a pickle apart without running anything in it.

A pickle is a program for a small stack machine, and the standard unpickler calls whatever that
program names. This file is another, smaller machine: `pickletools.genops` only *parses* opcodes,
`_Machine` executes the few that weights need, and the only things it can make are dicts, lists,
tuples, numbers, strings and what a `Dialect` has of its own: references to tensors in a torch state
dict (`TORCH`), arrays where those lie in the pickle itself (`numpy_pickle`). No class, function or
attribute named in the file is ever looked up, so there is nothing to call. Not part of the paper.
"""

import dataclasses
import pickletools
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any, BinaryIO, NamedTuple, Protocol, runtime_checkable

import ml_dtypes
import numpy as np

_STORAGE_DTYPES = {
    "torch DoubleStorage": np.dtype("<f8"),
    "torch FloatStorage": np.dtype("<f4"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
    "torch ShortStorage": np.dtype("<i2"),
    "torch CharStorage": np.dtype("i1"),
    "torch ByteStorage": np.dtype("u1"),
    "torch BoolStorage": np.dtype("?"),
}
MAX_RANK = 16


@dataclasses.dataclass(frozen=True)
class Global:
    """A name the pickle mentions. It stays a name."""

    name: str


class Dialect(NamedTuple):
    """What may be in a pickle of one kind besides plain values."""

    builders: Mapping[str, Callable[..., Any]]  # a name it may call -> what is called in its place
    names: Set[str] = frozenset()  # others that it may only mention
    opcodes: Set[str] = frozenset()  # others, whose argument is a value
    what: str = ""  # may be in such a file, for a message


@runtime_checkable
class Stateful(Protocol):
    """What a dialect built, and the pickle goes on to fill."""

    def set_state(self, state: Any) -> None: ...


class StorageReference(NamedTuple):
    key: str
    dtype: np.dtype
    size: int  # elements


class TensorReference(NamedTuple):
    storage: StorageReference
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Malformed(Exception):
    """What is wrong with the pickle; the caller adds the file's name."""


def unpickle(file: BinaryIO, dialect: Dialect | None = None) -> Any:
    """Runs one pickle from where `file` stands to its STOP, and leaves the file right after it.

    Malformed where it is damaged, or asks for anything that its dialect, `TORCH` if not given, has
    not.
    """
    machine = _Machine(dialect or TORCH)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return machine.pop()
            machine.run(opcode.name, argument)
    except Malformed:
        raise
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError) as error:
        message = f"damaged or cut short inside its pickle ({error}): fetch it again"
        raise Malformed(message) from error
    raise Malformed("cut short inside its pickle: fetch it again")


_MARK = object()
_PUSH_ARGUMENT = {
    *("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"),
    *("BINSTRING", "SHORT_BINSTRING", "STRING"),  # written by Python 2
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, dialect: Dialect):
        self._dialect = dialect
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self._stack.pop()

    def run(self, op: str, argument: Any) -> None:
        """Executes one opcode; `argument` as `pickletools` parsed it."""
        push = self._stack.append
        if op in _PUSH_ARGUMENT or op in self._dialect.opcodes:
            push(argument)
        elif op in _CONSTANTS:
            push(_CONSTANTS[op])
        elif op in _EMPTY:
            push(_EMPTY[op]())
        elif op == "MARK":
            push(_MARK)
        elif op == "TUPLE":
            push(tuple(self._to_mark()))
        elif op in _TUPLES:
            push(tuple([self.pop() for _ in range(_TUPLES[op])][::-1]))
        elif op == "LIST":
            push(self._to_mark())
        elif op == "DICT":
            items = self._to_mark()
            push(dict(_checked(zip(items[::2], items[1::2], strict=True))))
        elif op in ("APPEND", "APPENDS"):
            items = self._to_mark() if op == "APPENDS" else [self.pop()]
            self._top(list).extend(items)
        elif op in ("SETITEM", "SETITEMS"):
            items = self._to_mark() if op == "SETITEMS" else [self.pop(), self.pop()][::-1]
            self._top(dict).update(_checked(zip(items[::2], items[1::2], strict=True)))
        elif op in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self._memo[len(self._memo) if op == "MEMOIZE" else argument] = self._stack[-1]
        elif op in ("BINGET", "LONG_BINGET", "GET"):
            push(self._memo[argument])
        elif op == "GLOBAL":
            push(self._allowed(argument))
        elif op == "STACK_GLOBAL":
            name, module = self.pop(), self.pop()
            if type(name) is not str or type(module) is not str:
                raise TypeError("a global whose name is not a string")
            push(self._allowed(f"{module} {name}"))
        elif op == "BINPERSID":
            push(_storage(self.pop()))
        elif op == "REDUCE":
            arguments, function = self.pop(), self.pop()
            push(self._build(function, arguments))
        elif op == "BUILD":
            state = self.pop()
            if isinstance(self._stack[-1], Stateful):
                self._stack[-1].set_state(state)
            else:  # a state dict's `_metadata` (module versions), which nothing here needs
                self._top(dict)
        elif op not in ("PROTO", "FRAME"):
            what = "" if argument is None else f"{str(argument)[:80]!r} "
            raise self._refusal(f"{what}(opcode {op})")

    def _to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise TypeError(f"a {type(self._stack[-1]).__name__} where a {kind.__name__} belongs")
        return self._stack[-1]

    def _allowed(self, name: str) -> Global:
        if name not in self._dialect.builders and name not in self._dialect.names:
            raise self._refusal(name.replace(" ", "."))
        return Global(name)

    def _build(self, function: Any, arguments: Any) -> Any:
        name = function.name if isinstance(function, Global) else None
        if name not in self._dialect.builders:
            raise self._refusal(f"the result of calling {name or type(function).__name__}")
        return self._dialect.builders[name](*arguments)

    def _refusal(self, what: str) -> Malformed:
        return Malformed(
            f"refused to build {what}: only {self._dialect.what} may be in a weights file; do not "
            "open this file with anything less careful"
        )


def _checked(pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Only plain keys: hashing a tuple of tuples of tuples can take for ever."""
    for key, value in pairs:
        if type(key) not in (str, int):
            raise TypeError(f"a {type(key).__name__} as the key of a dict")
        yield key, value


def _storage(identifier: Any) -> StorageReference:
    kind, storage_type, key, _location, size, *view = identifier
    if kind != "storage" or not isinstance(key, str) or not isinstance(storage_type, Global):
        raise ValueError("a reference to something that is not a storage")
    if view not in ([], [None]):
        raise ValueError(
            f"storage {key!r} is a view of another, which torch stopped writing in 2017"
        )
    return StorageReference(key, _STORAGE_DTYPES[storage_type.name], count(size))


def ordered_dict(items: Iterable[tuple[Any, Any]] = ()) -> dict[str | int, Any]:
    """In the place of `collections.OrderedDict`; dicts keep their order."""
    return dict(_checked(items))


def _parameter(tensor: Any, _requires_grad: Any, _hooks: Any) -> TensorReference:
    if not isinstance(tensor, TensorReference):
        raise TypeError("a parameter that is not a tensor")
    return tensor


def _tensor(storage, offset, shape, strides, _requires_grad, _hooks, *_metadata) -> TensorReference:
    if not isinstance(storage, StorageReference) or not len(shape) == len(strides) <= MAX_RANK:
        raise TypeError("a tensor without a storage, or with a shape its strides do not fit")
    return TensorReference(
        storage, count(offset), tuple(map(count, shape)), tuple(map(count, strides))
    )


def count(value: Any) -> int:
    """A size in a pickle; ValueError where it can be none."""
    # 2^46 numbers are more than any file holds, and byte offsets to them still fit into int64.
    if type(value) is not int or not 0 <= value < 2**46:
        raise ValueError("a size that is negative, endless or no number")
    return value


TORCH = Dialect(
    {
        "collections OrderedDict": ordered_dict,
        "torch._utils _rebuild_tensor_v2": _tensor,
        "torch._utils _rebuild_parameter": _parameter,
    },
    names=_STORAGE_DTYPES.keys(),
    what="tensors, OrderedDict, numbers and strings",
)
