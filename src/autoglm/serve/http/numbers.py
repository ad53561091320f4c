"""JSON bodies to arrays: strictly, and for large ones without a Python object per number."""

from __future__ import annotations

import warnings
from functools import cache
from math import isfinite, prod
from typing import Any

import numpy as np
import orjson

from autoglm.errors import InvalidRequestError
from autoglm.tensor.dtype import dtype as dtype_row
from autoglm.tensor.dtype import to_numpy

# What does not fit is refused below, in words.
warnings.filterwarnings("ignore", "overflow encountered in cast", RuntimeWarning, __name__)

_FEW = 64
LARGE = 32 << 10  # bytes from which the second parser pays
_TYPES = {"float": ("d", np.float64), "int": ("i", np.int64), "uint": ("u", np.uint64)}
_KINDS = {"float": "fiu", "int": "iu", "uint": "iu", "bool": "b"}
_NAMES = {"f": "numbers", "i": "whole numbers", "u": "whole numbers", "b": "true and false"}


def parse(body: bytes) -> dict[str, Any]:
    """The body's JSON object. In a large body, arrays below "data" stay in the parser's own form,
    which `array_of` takes as well.
    """
    try:
        value = _large(body) or orjson.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(
            "The body is not JSON: {reason}.", reason=str(error)[:200]
        ) from error
    if not isinstance(value, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    return value


def _large(body: bytes) -> Any:
    """Parsed by simdjson, which also tells true from 1; None where it is not here, not worth it, or
    refuses (it takes no integer beyond 64 bits): then orjson has the last word.
    """
    typed = len(body) >= LARGE or b"true" in body or b"false" in body
    if not typed or (parser := _large_parser()) is None:
        return None
    try:
        return _opened(parser().parse(body), kept=False)
    except (ValueError, LookupError, RuntimeError):  # an odd key cannot be looked up
        return None


@cache
def _large_parser() -> Any:
    try:
        import simdjson
    except ImportError:
        return None
    return simdjson.Parser


def _opened(value: Any, *, kept: bool) -> Any:
    if hasattr(value, "as_dict"):
        if len(value) > _FEW:
            return value.as_dict()
        return {k: _opened(value[k], kept=kept or k == "data") for k in value.keys()}  # noqa: SIM118
    if hasattr(value, "as_buffer"):
        if kept:
            return value
        # Iterating makes Python lists of what is inside; an index does not, and takes longer.
        few = len(value) <= _FEW
        return [_opened(value[i], kept=False) for i in range(len(value))] if few else list(value)
    return value


def array_of(name: str, data: Any, dtype: str, shape: tuple[int, ...] | None = None) -> Any:
    """Nested or flat lists as an array of `dtype`; with a `shape`, of that shape.

    Raises InvalidRequestError for text among numbers, null, ragged lists, and what the dtype
    cannot hold.
    """
    row = dtype_row(dtype)
    if hasattr(data, "as_buffer"):
        array = _from_large(name, data, row.kind)
    else:
        array = _from_list(name, data)
    if row.kind == "string":
        array = _text(name, array)
    elif array.size and array.dtype.kind not in _KINDS.get(row.kind, ""):
        raise _misfit(name, dtype, _NAMES.get(array.dtype.kind, "text, null or uneven lists"))
    else:
        array = _cast(name, array, dtype, row.kind)
    if shape is None:
        return array
    if array.size != prod(shape) or min(shape, default=1) < 0:
        raise InvalidRequestError(
            "{name!r}: shape {shape} takes {expected} elements; found {found}.",
            name=name,
            shape=list(shape)[:16],
            expected=prod(shape),
            found=array.size,
        )
    return array.reshape(shape)


def _from_list(name: str, data: Any) -> Any:
    if isinstance(data, dict):
        raise _misfit(name, "a list", "an object")
    try:
        return np.array(data)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError(
            "{name!r}: lists at one depth have different lengths, or are nested too deep.",
            name=name,
        ) from error


def _from_large(name: str, data: Any, kind: str) -> Any:
    if kind not in _TYPES:
        return _from_list(name, data.as_list())
    try:
        letter, held = _TYPES[kind]
        flat = np.frombuffer(data.as_buffer(of_type=letter), held)
    except (TypeError, ValueError) as error:
        raise _misfit(name, kind, "something else") from error
    shape = _shape(name, data)
    if prod(shape) != flat.size:
        raise InvalidRequestError(
            "{name!r}: lists at one depth have different lengths, or are nested too deep.",
            name=name,
        )
    return flat.reshape(shape)


def _shape(name: str, data: Any) -> tuple[int, ...]:
    shape: list[int] = []
    level = [data]
    while level:
        size = len(level[0])
        uneven = any(not hasattr(item, "as_buffer") or len(item) != size for item in level)
        if uneven or len(shape) >= 32:
            raise InvalidRequestError(
                "{name!r}: lists at one depth have different lengths, or are nested too deep.",
                name=name,
            )
        shape.append(size)
        # One look decides whether numbers follow: a number among lists makes the count wrong.
        deeper = size and hasattr(level[0][0], "as_buffer")
        level = [inner for item in level for inner in item] if deeper else []
    return tuple(shape)


def _text(name: str, array: Any) -> Any:
    if array.dtype.kind == "U" or array.size == 0:
        return array.astype(object)
    raise _misfit(name, "string", _NAMES.get(array.dtype.kind, "null or uneven lists"))


def _cast(name: str, array: Any, dtype: str, kind: str) -> Any:
    held = to_numpy(dtype)
    if kind in ("int", "uint") and array.size and array.dtype != held:
        info = np.iinfo(held)
        if array.min() < info.min or array.max() > info.max:
            raise _misfit(name, dtype, "a number beyond its range")
    result = array.astype(held, copy=False)
    # JSON has no infinity: one here is a number that did not fit. The product finds it soonest.
    if kind == "float" and not (isfinite(np.vdot(result, result)) or np.isfinite(result).all()):
        raise _misfit(name, dtype, "a number beyond its range")
    return result


def _misfit(name: str, dtype: str, found: str) -> InvalidRequestError:
    return InvalidRequestError(
        "{name!r} takes {dtype}; found {found}.",
        hint="NaN and infinities travel as binary tensors only.",
        name=name,
        dtype=dtype,
        found=found,
    )
