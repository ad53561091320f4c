"""Whether feeds fit what a session takes; the first that does not is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoglm.errors import InputError
from autoglm.spec import Dim, Feeds, TensorInfo, Value
from autoglm.tensor.dtype import DTYPES, to_numpy

# `isbuiltin` and not `kind`: ml_dtypes' float8_e5m2 calls itself a plain float.
_PLAIN = frozenset(
    name for name, row in DTYPES.items() if row.numpy.isbuiltin == 1 and row.numpy.kind in "biuf"
)


def is_plain(info: TensorInfo) -> bool:
    """Whether NumPy alone can hold this value: a tensor of a native number type."""
    return info.kind == "tensor" and info.dtype in _PLAIN


def is_exotic(info: TensorInfo) -> bool:
    """Whether NumPy itself lacks the element type: bfloat16, fp8, 4 or 2 bit."""
    return info.dtype not in _PLAIN and info.dtype not in ("string", "")


def check_feeds(inputs: Sequence[TensorInfo], feeds: Feeds) -> dict[str, Value]:
    """The feeds as engines take them: native arrays, 0-d kept, text as `str` objects.

    Raises InputError for what is missing, unknown, or of another dtype, rank, size or byte order.
    """
    if not isinstance(feeds, Mapping):
        raise InputError(
            "Feeds must map input names to arrays; found {found}.", found=type(feeds).__name__
        )
    known = {info.name: info for info in inputs}
    if unknown := [name for name in feeds if name not in known]:
        raise InputError(
            "No input {name!r}; the model takes {known}.",
            name=unknown[0],
            known=", ".join(known) or "nothing",
        )
    return {name: _value(info, _given(info, feeds)) for name, info in known.items()}


def _given(info: TensorInfo, feeds: Feeds) -> Value:
    if info.name in feeds:
        value = feeds[info.name]
        if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray | np.generic):
            from autoglm.tensor.dlpack import from_dlpack

            return from_dlpack(value)
        return value
    if info.kind == "optional":
        return None
    raise InputError(
        "Input {name!r} is missing; it takes {expected}.", name=info.name, expected=describe(info)
    )


def _value(info: TensorInfo, value: Value) -> Value:
    if info.kind == "optional" and value is None:
        return None
    if info.kind == "tensor" or (info.kind == "optional" and not isinstance(value, (list, tuple))):
        return _tensor(info, value)
    if not isinstance(value, (list, tuple)):
        raise _misfit(info, type(value).__name__)
    return [_tensor(info, item) for item in value]


def _tensor(info: TensorInfo, value: Value) -> Any:
    if not isinstance(value, (np.ndarray, np.generic)):
        raise _misfit(info, f"a Python {type(value).__name__}")
    array = np.asarray(value)
    if info.dtype == "string":
        array = _text(info, array)
    elif info.dtype and array.dtype != to_numpy(info.dtype):
        raise _misfit(info, f"{_order(array.dtype)}{array.dtype.name} {list(array.shape)}")
    if info.kind != "sequence" and not fits(array.shape, info.shape):
        raise _misfit(info, f"{info.dtype} {list(array.shape)}")
    return array


def _text(info: TensorInfo, array: Any) -> Any:
    if array.dtype.kind in "UT":
        return array.astype(object)
    if array.dtype.kind != "O":
        raise _misfit(info, f"{array.dtype.name} {list(array.shape)}")
    if wrong := [item for item in array.reshape(-1) if not isinstance(item, str)]:
        raise _misfit(info, f"an object array that holds a {type(wrong[0]).__name__}")
    return array


def _order(dtype: np.dtype[Any]) -> str:
    return "" if dtype.isnative else "byte-swapped "


def fits(found: Sequence[int], declared: Sequence[Dim] | None) -> bool:
    """Whether a shape is one the declaration allows; names and None stand for any size."""
    if declared is None:
        return True
    return len(found) == len(declared) and all(
        not isinstance(d, int) or d == n for n, d in zip(found, declared, strict=True)
    )


def describe(info: TensorInfo) -> str:
    """A tensor as a user reads it: `float32 [batch, 3, 224, 224]`."""
    shape = "of any shape" if info.shape is None else f"[{', '.join(_dim(d) for d in info.shape)}]"
    kind = {"sequence": "a sequence of ", "optional": "optionally "}.get(info.kind, "")
    return f"{kind}{info.dtype} {shape}"


def _dim(dim: Dim) -> str:
    return "?" if dim is None else str(dim)


def _misfit(info: TensorInfo, found: str) -> InputError:
    return InputError(
        "Input {name!r} takes {expected}; found {found}.",
        name=info.name,
        expected=describe(info),
        found=found,
    )
