"""Dataclasses from nested mappings, every key and type checked, and back: the way to JSON.

Only the standard library is imported.
"""

import dataclasses
import difflib
import types
import typing
from typing import Any, Literal, TypeVar

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A nested dict of JSON values."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], values: typing.Mapping[str, Any], path: str = "") -> T:
    """Dataclass `cls` from nested mappings; ValueError on an unknown, missing or mistyped key."""
    if not isinstance(values, typing.Mapping):
        where = path.removesuffix(".") or cls.__name__
        raise ValueError(f"{where}={values!r}: want the keys of a {cls.__name__}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {path}{close[0]}?" if close else f"valid: {sorted(fields)}"
            raise ValueError(f"unknown config key {path}{key}: {hint}")
    required = (f.name for f in fields.values() if f.default is dataclasses.MISSING)
    if missing := [name for name in required if name not in values]:
        raise ValueError(f"missing config key {path}{missing[0]} (of {cls.__name__})")
    return cls(**{k: _coerce(hints[k], v, f"{path}{k}") for k, v in values.items()})


def _coerce(hint: Any, value: Any, path: str) -> Any:
    """`value` as `hint` says: nested dataclasses built, lists made tuples, types checked."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, f"{path}.")
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{path}={value!r}: use one of {list(args)}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [a for a in args if a is not type(None)]
        return _coerce(kinds[0] if len(kinds) == 1 else _of_kind(kinds, value, path), value, path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{path}={value!r}: want a list of values")
        if args[-1] is Ellipsis:
            args = args[:1] * len(value)
        if len(value) != len(args):
            raise ValueError(f"{path}={value!r}: want {len(args)} values")
        pairs = zip(args, value, strict=True)
        return tuple(_coerce(arg, v, f"{path}[{i}]") for i, (arg, v) in enumerate(pairs))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, str, bool) and type(value) is not hint:
        raise ValueError(f"{path}={value!r}: want {hint.__name__}, got {type(value).__name__}")
    return value


def _of_kind(classes: list[type], value: Any, path: str) -> type:
    """The dataclass that `value` is of, or that its key `kind` names; the first where none does."""
    if isinstance(value, tuple(classes)):
        return type(value)
    named = {cls.kind: cls for cls in classes}
    kind = value.get("kind", classes[0].kind) if isinstance(value, typing.Mapping) else None
    if kind not in named:
        raise ValueError(f"{path}={value!r}: want a `kind` among its keys, one of {[*named]}")
    return named[kind]
