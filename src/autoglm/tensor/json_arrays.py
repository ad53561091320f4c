"""A value as JSON and back: nested lists, or `{"dtype", "shape", "data"}` with flat data.

A sequence is `{"sequence": [...]}`, an absent optional null, a complex number `[real, imaginary]`,
and a float that is not finite "inf", "-inf" or "nan".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from autoglm.errors import InputError
from autoglm.spec import Value
from autoglm.tensor.dtype import dtype as dtype_row
from autoglm.tensor.dtype import from_numpy, is_native, to_numpy

_KINDS = {"bool": bool, "int": int, "uint": int, "string": str}


def to_json(value: Value) -> Any:
    """A value as JSON values, with dtype and shape."""
    if value is None:
        return None
    if isinstance(value, list | tuple):
        return {"sequence": [to_json(item) for item in value]}
    array = np.asarray(value)
    name = from_numpy(array.dtype)
    data = [_out(item, dtype_row(name).kind) for item in array.reshape(-1)]
    return {"dtype": name, "shape": list(array.shape), "data": data}


def from_json(name: str, data: Any, dtype: str = "") -> Value:
    """The value that stands under `name`; `dtype` is what the model wants, where known.

    Nested lists without a dtype are float32, int64, bool or string by what they hold.
    """
    if data is None:
        return None
    if isinstance(data, dict):
        if "sequence" in data:
            items = _list(name, data["sequence"])
            return [from_json(f"{name}[{i}]", item, dtype) for i, item in enumerate(items)]
        return _described(name, data, dtype)
    shape, flat = _flat(name, data, dtype)
    return _array(name, flat, shape, dtype or _guess(flat))


def _described(name: str, data: dict[str, Any], dtype: str) -> np.ndarray:
    unknown = sorted(set(data) - {"dtype", "shape", "data"})
    if unknown or "data" not in data:
        raise InputError(
            "{name!r}: expected the keys dtype, shape and data, or sequence; found {found}.",
            name=name,
            found=", ".join(sorted(data)[:8]) or "none",
        )
    dtype = str(data.get("dtype", dtype))[:80]
    shape, flat = _flat(name, data["data"], dtype)
    if "shape" in data:
        declared = _list(name, data["shape"])
        if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in declared):
            raise InputError(
                "{name!r}: a shape is a list of sizes; found {found}.",
                name=name,
                found=str(declared)[:80],
            )
        if math.prod(declared) != len(flat):
            raise InputError(
                "{name!r}: shape {shape} takes {expected} elements; found {found}.",
                name=name,
                shape=declared[:16],
                expected=math.prod(declared),
                found=len(flat),
            )
        shape = tuple(declared)
    return _array(name, flat, shape, dtype or _guess(flat))


def _flat(name: str, data: Any, dtype: str) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of nested lists, and their elements in order."""
    shape: list[int] = []
    level = [data]
    while level and all(isinstance(item, list) for item in level):
        sizes = {len(item) for item in level}
        if len(sizes) > 1:
            raise InputError(
                "{name!r}: lists at depth {depth} have different lengths: {found}.",
                name=name,
                depth=len(shape),
                found=", ".join(map(str, sorted(sizes)[:8])),
            )
        shape.append(sizes.pop())
        level = [element for item in level for element in item]
    if any(isinstance(item, list | dict) or item is None for item in level):
        raise InputError("{name!r}: lists and numbers are mixed at one depth.", name=name)
    if dtype.startswith("complex") and shape and shape[-1] == 2:
        return tuple(shape[:-1]), list(zip(level[::2], level[1::2], strict=True))
    return tuple(shape), level


def _guess(flat: list[Any]) -> str:
    if flat and all(isinstance(item, bool) for item in flat):
        return "bool"
    if flat and all(isinstance(item, int) and not isinstance(item, bool) for item in flat):
        return "int64"
    words = {"inf", "-inf", "nan"}
    if any(isinstance(item, str) and item not in words for item in flat):
        return "string"
    return "float32"


def _array(name: str, flat: list[Any], shape: tuple[int, ...], dtype: str) -> np.ndarray:
    kind = dtype_row(dtype).kind
    try:
        items = [_in(name, item, kind, dtype) for item in flat]
    except OverflowError as error:
        raise _misfit(name, dtype, "a number beyond its range") from error
    if kind == "string":
        array = np.empty(len(items), object)
        array[:] = items
        return array.reshape(shape)
    if kind in ("int", "uint"):
        _require_range(name, dtype, kind, items)
    held = to_numpy(dtype)
    wide = np.int64 if kind in ("int", "uint") else np.float64
    array = np.array(items, held if is_native(dtype) else wide).astype(held)
    return array.reshape(shape)


def _require_range(name: str, dtype: str, kind: str, items: list[int]) -> None:
    bits = dtype_row(dtype).bits
    low = -(1 << (bits - 1)) if kind == "int" else 0
    if items and not (low <= min(items) and max(items) < low + (1 << bits)):
        raise _misfit(name, dtype, "a number beyond its range")


def _in(name: str, item: Any, kind: str, dtype: str) -> Any:
    expected = _KINDS.get(kind)
    if expected is not None:
        if not isinstance(item, expected) or (expected is int and isinstance(item, bool)):
            raise _misfit(name, dtype, repr(item)[:80])
        return item
    if kind == "complex" and isinstance(item, tuple):
        return complex(*(_in(name, part, "float", dtype) for part in item))
    if item in ("inf", "-inf", "nan"):
        return float(item)
    if isinstance(item, bool) or not isinstance(item, int | float):
        raise _misfit(name, dtype, repr(item)[:80])
    return float(item)


def _out(item: Any, kind: str) -> Any:
    if kind == "string":
        return item.decode() if isinstance(item, bytes) else str(item)
    if kind == "complex":
        return [_out(item.real, "float"), _out(item.imag, "float")]
    if kind == "bool":
        return bool(item)
    if kind in ("int", "uint"):
        return int(item)
    number = float(item)
    return number if math.isfinite(number) else str(number)


def _list(name: str, data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise InputError(
            "{name!r}: expected a list, found {found}.", name=name, found=type(data).__name__
        )
    return data


def _misfit(name: str, dtype: str, found: str) -> InputError:
    return InputError("{name!r} takes {dtype}; found {found}.", name=name, dtype=dtype, found=found)
