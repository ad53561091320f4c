"""The concepts as JSON and back: dataclasses, enums and tuples, by their type hints.

JSON has no infinities, so a float that is not finite is written as "inf", "-inf" or "nan".
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from autoglm.errors import BundleError

T = TypeVar("T")


def encode(value: object) -> Any:
    """`value` as JSON values; BundleError for what has no place in JSON."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(encode(item) for item in value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [encode(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a NumPy scalar
        return encode(value.item())
    raise BundleError("A {found} cannot be written to JSON.", found=type(value).__name__)


def decode(kind: type[T], data: object, where: str = "") -> T:
    """`data` as a `kind`; BundleError names what does not fit. Unknown keys are passed over."""
    return _decode(kind, data, where or kind.__name__)  # type: ignore[no-any-return]


def _decode(kind: Any, data: object, where: str) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return data
    if origin in (Union, types.UnionType):
        return _union(get_args(kind), data, where)
    if is_dataclass(kind) and isinstance(kind, type):
        return _record(kind, _expect(dict, data, where), where)
    if origin is tuple:
        items = _expect(list, data, where)
        return tuple(_decode(get_args(kind)[0], v, f"{where}[{i}]") for i, v in enumerate(items))
    if origin is not None and issubclass(origin, Mapping):
        item = get_args(kind)[1]
        return {k: _decode(item, v, f"{where}.{k}") for k, v in _expect(dict, data, where).items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum(kind, data, where)
    if kind is float:
        return _float(data, where)
    return _expect(kind, data, where)


def _record(kind: type, data: Mapping[str, object], where: str) -> Any:
    hints = _hints(kind)
    found: dict[str, object] = {}
    for f in fields(kind):
        if f.name in data:
            found[f.name] = _decode(hints[f.name], data[f.name], f"{where}.{f.name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise _wrong(where, f"a key {f.name!r}", "none")
    return kind(**found)


def _union(kinds: Sequence[Any], data: object, where: str) -> Any:
    if data is None and type(None) in kinds:
        return None
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return _decode(kind, data, where)
        except BundleError:
            continue
    raise _wrong(where, " or ".join(_name(k) for k in kinds), _found(data))


def _enum(kind: type[Enum], data: object, where: str) -> Enum:
    try:
        return kind(data)
    except ValueError as error:
        allowed = " or ".join(repr(member.value) for member in kind)
        raise _wrong(where, allowed, repr(data)[:80]) from error


def _float(data: object, where: str) -> float:
    if isinstance(data, int | float) and not isinstance(data, bool):
        return float(data)
    if data in ("inf", "-inf", "nan"):
        return float(str(data))
    raise _wrong(where, "a number", _found(data))


def _expect(kind: Any, data: object, where: str) -> Any:
    wrong_bool = isinstance(data, bool) and kind is not bool
    if not isinstance(data, kind) or wrong_bool:
        raise _wrong(where, _name(kind), _found(data))
    return data


def _found(data: object) -> str:
    return _name(type(data))


def _name(kind: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        int: "a whole number",
        type(None): "null",
    }
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _wrong(where: str, expected: str, found: str) -> BundleError:
    return BundleError(
        "{where}: expected {expected}, found {found}.", where=where, expected=expected, found=found
    )


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
